"""retokenise: the prepared rows in a teacher's own tokens, row by row, and which of both models' tokens begin together.

Of a teacher with another tokenizer than its student. Prompts are written by each model's own template; the response is
the text that the student learns, cut where the student's is.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray.data

from kdray.artifacts.aligned import write_aligned
from kdray.artifacts.rows import SCHEMA, Rows, rows_writer, write_split
from kdray.data.example import Document, Example
from kdray.data.pieces import first_tokens, same_places, token_bytes
from kdray.data.templates import open_template
from kdray.data.tokenise import Tokenised, beginning, tokenise
from kdray.models.load import load_tokenizer
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import RetokeniseInputs
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.errors import InputError
from kdray.spec.folders import is_encoder_decoder, read_config, window_of

DECLARED = declare.Stage(version=1)
SLICE = 512  # rows that a task turns into tokens
UNBOUNDED = 1 << 30
COUNTS = ("tokens", "learned", "text", "position", "cut")


def retokenise(steps: list[Step[RetokeniseInputs]], work: Work) -> None:
    """Make the missing ones of `steps`."""
    for step, attempt in work.each(steps):
        folders = [work.folder(needed) for needed in (step.inputs.data, step.inputs.student, step.inputs.tokenizer)]
        facts = _retokenise(folders, step.params["template"], work, attempt.path)
        work.seal(step, attempt, None, **facts)
        share = facts[work.plan.grid.soft_labels.align or "text"] / max(facts["learned"], 1)
        work.progress.say(
            f"soft labels of {step.inputs.tokenizer.slug}: its tokens are not the student's, of whose response tokens"
            f" {share:.1%} find one of its own; {facts['cut']} rows are cut by its window"
        )


def _retokenise(folders: list[Path], template: dict[str, Any], work: Work, target: Path) -> dict[str, Any]:
    """Write the rows, their split and what is aligned; returns counts of tokens, and how many of the student's find
    one of the teacher's by text and by position.
    """
    rows = Rows(folders[0])
    turn: Any = functools.partial(retokenise_slice, *map(str, folders), template)
    slices = ray.data.range(len(rows), override_num_blocks=-(-len(rows) // SLICE)).map_batches(turn, batch_size=SLICE)
    answers: Iterator[Any] = iter(slices.iter_rows())
    facts: dict[str, Any] = dict.fromkeys(COUNTS, 0)
    pairs: list[tuple[list[int], list[int]]] = []
    with work.progress.bar("retokenise", len(rows), "rows") as bar, rows_writer(target) as writer:
        for answer in answers:
            if answer["error"]:
                raise InputError(*json.loads(answer["error"]))
            writer.write_table(pa.ipc.open_stream(answer["rows"]).read_all())
            found = json.loads(answer["pairs"])
            pairs += found
            facts = {name: count + answer[name] for name, count in facts.items()}
            bar.set(len(pairs))
    write_split(target, rows.heldout.tolist(), rows.test.tolist())
    both = _both(str(folders[1]), str(folders[2]))
    write_aligned(target, pairs, both.first, both.begin)
    return facts


def retokenise_slice(data: str, ours: str, theirs: str, template: dict[str, Any], batch: dict[str, Any]) -> pa.Table:
    """Rows by number as one row: an Arrow stream of the same in the teacher's tokens, which tokens begin together as
    JSON, and counts.

    What is wrong with the input comes back as `error`: raised here, it would reach the user inside a Ray traceback.
    """
    rows, both, numbers = _rows(data), _both(ours, theirs), [int(row) for row in batch["id"]]
    before = " " if declared(declare.Template, template["name"]).space else ""
    examples: list[Example | Document] = [
        Example(rows.text(row, "instruction"), rows.text(row, "context"), _learned(rows, row, both, before))
        for row in numbers
    ]
    window = window_of(Path(theirs)) or UNBOUNDED
    answer: dict[str, Any] = {"rows": b"", "pairs": "[]", "error": "", **dict.fromkeys(COUNTS, 0)}
    try:
        made = tokenise(examples, open_template(template), both.theirs, window - 1, window)
        if lost := [row for row, some in zip(numbers, made, strict=True) if not some]:
            number = int(rows.table["source_row"][lost[0]].as_py()) + 1
            raise InputError(
                "data.max_prompt", f"row {number} has no room in the teacher's window of {window} tokens", "lower it"
            )
    except InputError as error:
        return _table(answer | {"error": json.dumps([error.field, error.found, error.allowed])})
    kept, pairs = [], []
    for row, [whole] in zip(numbers, made, strict=True):
        learned, ended = _response(rows, row), _ended(rows, row, both)
        ids = (
            whole.input_ids if ended or whole.truncated else whole.input_ids[:-1]
        )  # no end where the student's has none
        kept.append(Tokenised(ids, whole.n_prompt))
        pairs.append(both.pairs(learned, ids[whole.n_prompt :]))
        answer["tokens"] += len(ids)
        answer["learned"] += len(learned)
        answer["text"] += len(pairs[-1][0])
        answer["position"] += min(len(learned) - both.begin, len(ids) - whole.n_prompt)
        answer["cut"] += whole.truncated
    return _table(answer | {"rows": _stream(rows, numbers, kept), "pairs": json.dumps(pairs)})


@dataclass(frozen=True)
class Both:
    """Two tokenizers, what the tokens of each write, and by which of ours a text of theirs begins. `begin`: how many of
    ours stand before the text of a response; an encoder-decoder's tokenizer may put some there.
    """

    ours: Any
    theirs: Any
    our_bytes: list[bytes | None]
    their_bytes: list[bytes | None]
    first: list[int]
    begin: int

    def pairs(self, ours: list[int], theirs: list[int]) -> tuple[list[int], list[int]]:
        """The numbers of the tokens of one response that begin together, and of which theirs begins with ours."""
        writes = ([self.our_bytes[id] or b"" for id in ours], [self.their_bytes[id] or b"" for id in theirs])
        found = [(i, j) for i, j in same_places(*writes) if self.first[theirs[j]] == ours[i]]
        if ours[-1] == self.ours.eos_token_id and theirs[-1] == self.theirs.eos_token_id:
            found.append((len(ours) - 1, len(theirs) - 1))
        return [i for i, _ in found], [j for _, j in found]


def _learned(rows: Rows, row: int, both: Both, before: str) -> str:
    """The text of a row's response; of one that is cut, what is left of it."""
    if _ended(rows, row, both):
        return before + rows.text(row, "response")
    written = b"".join(both.our_bytes[id] or b"" for id in _response(rows, row))
    return written.decode("utf-8", "ignore") or " "


def _response(rows: Rows, row: int) -> list[int]:
    return rows.input_ids(row)[int(rows.prompt_lengths[row]) :]


def _ended(rows: Rows, row: int, both: Both) -> bool:
    return _response(rows, row)[-1] == both.ours.eos_token_id


def _table(answer: dict[str, Any]) -> pa.Table:
    return pa.table(
        {name: pa.array([value], pa.large_binary() if name == "rows" else None) for name, value in answer.items()}
    )


def _stream(rows: Rows, numbers: list[int], made: list[Tokenised]) -> bytes:
    """The rows `numbers` with other tokens, as an Arrow stream."""
    table = rows.table.take(numbers)
    table = table.set_column(
        1, SCHEMA.field("input_ids"), pa.array([row.input_ids for row in made], SCHEMA.field("input_ids").type)
    )
    table = table.set_column(2, SCHEMA.field("n_prompt"), pa.array([row.n_prompt for row in made], pa.int32()))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


@functools.cache
def _rows(folder: str) -> Rows:
    return Rows(Path(folder))


@functools.cache
def _both(ours: str, theirs: str) -> Both:
    mine, other = load_tokenizer(Path(ours)), load_tokenizer(Path(theirs))
    begin = len(beginning(mine)) if is_encoder_decoder(read_config(Path(ours))) else 0
    return Both(mine, other, token_bytes(mine), token_bytes(other), first_tokens(other, mine), begin)
