"""Prepared rows with a teacher's answers, in place of the responses (sequence-level KD) or beside them.

Held-out and test rows stay as they are and in their order: all points are measured on the same text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from kdray.artifacts.rows import SCHEMA, Rows, rows_writer, write_split
from kdray.data.example import Example
from kdray.data.thoughts import split_thought, unwrapped
from kdray.data.tokenise import Template, tokenise
from kdray.models.load import token_count

CHUNK = 256  # rows that are in memory at once


@dataclass(frozen=True)
class Spoken:
    """Of a teacher with another tokenizer than the student's: the same rows in its tokens, and how prompts are written
    in the student's, whose responses stand behind `before`; or, for an encoder-decoder, by themselves, of as many
    tokens as its `decoder` reads.
    """

    rows: Rows
    tokenizer: PreTrainedTokenizerBase
    template: Template
    before: str
    decoder: int | None = None

    @cached_property
    def tokens(self) -> int:
        """How many the teacher's tokenizer has."""
        return token_count(self.tokenizer)


def write_answered(
    rows: Rows,
    answers: Iterable[list[int]],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    max_new_tokens: int,
    max_length: int,
    known: int | None = None,
    spoken: Spoken | None = None,
) -> dict[str, int]:
    """Write `rows` with an answer (token ids without EOS) in place of each training response; returns what became of
    them.

    Answers come in the order of the table. What the teacher thought before it answered is left out (`thoughts`), and
    with it the tags that some models put around the answer then. A row is dropped if its answer is `empty`,
    `unfinished` (the teacher was still thinking when it was stopped) or has `unknown` tokens, from beyond the
    tokenizer's vocabulary or the `known` tokens of the student: nothing could be learned from them. As in `tokenise`,
    the whole is cut at `max_length` tokens, and an answer that did not end by itself has no EOS (`truncated`). Answers
    in other tokens, `spoken`, are written anew in the tokenizer's.
    """
    training, answers, size = set(rows.train.tolist()), iter(answers), token_count(tokenizer)
    known = min(known or size, size)
    counts = Counter(read=len(training), kept=0, empty=0, unknown=0, truncated=0)
    numbers: dict[int, int] = {}  # of the rows that are written, by their number among `rows`

    def chunks() -> Iterable[pa.Table]:
        row = -1
        for chunk in rows.table.to_batches(max_chunksize=CHUNK):
            kept = []
            for record in chunk.to_pylist():
                row += 1
                if row in training:
                    answer, prompt = next(answers), record["input_ids"][: record["n_prompt"]]
                    if spoken:
                        prompt = spoken.rows.input_ids(row)[: int(spoken.rows.prompt_lengths[row])]
                    limits = (max_new_tokens, max_length, known)
                    if not _answer(record, prompt, answer, tokenizer, *limits, counts, spoken):
                        continue
                numbers[row] = len(numbers)
                kept.append(record)
            yield pa.Table.from_pylist(kept, schema=SCHEMA)

    _write(folder, chunks())
    write_split(folder, *([numbers[row] for row in side.tolist()] for side in (rows.heldout, rows.test)))
    return dict(counts)


def write_both(rows: Rows, answered: Rows, folder: Path) -> None:
    """Write `rows` followed by the training rows of `answered`, what `write_answered` made of them."""
    answers = answered.table.take(pa.array(answered.train))
    _write(folder, (rows.table, answers))
    write_split(folder, rows.heldout.tolist(), rows.test.tolist())


def _answer(
    record: dict[str, Any],
    prompt: list[int],
    answer: list[int],
    tokenizer: Any,
    max_new_tokens: int,
    max_length: int,
    known: int,
    counts: Counter[str],
    spoken: Spoken | None,
) -> bool:
    """Put `answer` to `prompt`, in the teacher's tokens, into a row; False if there is nothing to learn from it."""
    speaker: Any = spoken.tokenizer if spoken else tokenizer
    if max(answer, default=0) >= (spoken.tokens if spoken else known):
        counts["unknown"] += 1
        return False
    ended = len(answer) < max_new_tokens
    if found := split_thought(prompt, answer, speaker):
        counts["thoughts"] += 1
        if found.end is None:
            counts["unfinished"] += 1
            return False
        answer = answer[found.n_ids :]
    text = speaker.decode(answer, skip_special_tokens=True).strip()
    if found and (bare := unwrapped(text)) != text:
        text, answer = bare, speaker(bare, add_special_tokens=False).input_ids
    if not text:
        counts["empty"] += 1
        return False
    whole = (_in_tokens(record, text, tokenizer, spoken) if spoken else prompt + answer) + (
        [tokenizer.eos_token_id] if ended else []
    )
    if spoken and max(whole) >= known:
        counts["unknown"] += 1
        return False
    if spoken and spoken.decoder is not None:
        max_length = min(max_length, record["n_prompt"] + spoken.decoder)
    record |= {"input_ids": whole[:max_length], "response": text}
    counts["kept"] += 1
    counts["truncated"] += not ended or len(whole) > max_length
    return True


def _in_tokens(record: dict[str, Any], text: str, tokenizer: Any, spoken: Spoken) -> list[int]:
    """A row's prompt and a response to it, without EOS."""
    example, room = Example(record["instruction"], record["context"], text), 1 << 30
    [[row]] = tokenise([example], spoken.template, tokenizer, room, room, spoken.before, decoder=spoken.decoder)
    return row.input_ids[:-1] if row.input_ids[-1] == tokenizer.eos_token_id else row.input_ids


def _write(folder: Path, tables: Iterable[pa.Table]) -> None:
    with rows_writer(folder) as writer:
        for table in tables:
            writer.write_table(table)
