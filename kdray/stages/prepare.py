"""prepare: the data source as tokenised rows with a fixed order, split into training and held-out rows.

A Ray task converts the source to Arrow files once. Then a streaming Ray Data pipeline: tasks read slices of the
memory-mapped files, the driver appends what comes back, in order, to one file. Memory does not grow with the rows.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.exceptions import RayTaskError

from kdray.artifacts.rows import SCHEMA, Rows, rows_writer, write_split
from kdray.check.checks import require_same_tokens
from kdray.data.example import Document, Example
from kdray.data.known import no_prompt, require_known
from kdray.data.mapped import open_rows, read_rows
from kdray.data.repeated import repeated
from kdray.data.split import make_split
from kdray.data.templates import open_template
from kdray.data.thoughts import opened_by
from kdray.data.tokenise import Beyond, Tokenised, tokenise
from kdray.models.load import load_tokenizer
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import PrepareInputs
from kdray.plan.limits import fitting
from kdray.plan.prepared import prepared_notes
from kdray.spec import declare
from kdray.spec.chat import bos_warning
from kdray.spec.columns import recipe_columns
from kdray.spec.components import declared, load
from kdray.spec.errors import InputError
from kdray.spec.folders import TOKENIZER, decoder_window, read_config

DECLARED = declare.Stage(version=2)
SLICE = 512  # source rows that a task turns into tokens
COUNTS = ("read", "skipped", "empty", "long", "truncated", "unasked")
LENGTHS = {"prompts": "max_prompt", "wholes": "max_length"}  # of what is beyond a limit


def prepare(steps: list[Step[PrepareInputs]], work: Work) -> None:
    """Make the missing ones of `steps`."""
    for step, attempt in work.each(steps):
        recipe, template = step.params["recipe"]["name"], step.params["template"]
        config = read_config(work.folder(step.inputs.tokenizer))
        if warning := bos_warning(recipe, template["name"], template["params"], config):
            work.progress.say(f"[yellow]data[/]: {warning}")
        facts = _prepare(step, work, attempt.path)
        work.seal(step, attempt, None, **facts)
        work.progress.say(
            f"data: {facts['kept']} rows from {facts['read']} read ({facts['skipped']} left out by the recipe,"
            f" {facts['empty']} without a response, {facts['long']} with a long prompt, {facts['truncated']} truncated)"
        )
        for note in prepared_notes(work.plan, work.store):
            work.progress.say(f"[yellow]data[/]: {note}")
    for step in steps:
        require_all_known(step, work)
        require_teachers_closed(step, work)


def require_all_known(step: Step[PrepareInputs], work: Work) -> None:
    """Whether the models of this grid know all tokens of the rows, which may have been prepared for another, as those
    that wrote them: of tokenizers that no check could read, both are loaded.
    """
    ours, known = work.folder(step.inputs.tokenizer), {}
    tokenizer = load_tokenizer(ours)
    for role, (field, _) in work.plan.grid.models().items():
        if role != "student" and work.plan.grid.soft_labels.align:
            continue  # it reads them in its own
        folder = work.folder(work.plan.models[role].untuned)
        if role != "student" and not all((each / TOKENIZER).is_file() for each in (ours, folder)):
            theirs = load_tokenizer(folder, f"{field}.model")
            require_same_tokens(tokenizer.get_vocab(), theirs.get_vocab(), f"{field}.model")
        size = read_config(folder).get("vocab_size")
        known |= {f"{field}.model": size} if size else {}
    require_known(Rows(work.folder(step)), known, tokenizer)


def require_teachers_closed(step: Step[PrepareInputs], work: Work) -> None:
    """Whether the teachers that read these rows by templates of their own, and not only to answer them, read responses
    as answers.
    """
    rows, grid = Rows(work.folder(step)), work.plan.grid
    for name, teacher in grid.all_teachers.items() if grid.soft_labels.align else ():
        asked = any(point.point.alpha > 0 and point.point.teacher in ("", name) for point in work.plan.points)
        if asked or teacher.tune:
            field, tokenizer = grid.models()[name][0], load_tokenizer(work.folder(work.plan.models[name].untuned))
            first = Example(*(rows.text(0, column) for column in ("instruction", "context", "response")))
            require_closed([first], open_template(step.params["template"]), tokenizer, f"the prompt of {field}.model")


def _prepare(step: Step[PrepareInputs], work: Work, target: Path) -> dict[str, Any]:
    """Write the rows and their split; returns how many source rows were read, what became of them, and which limits
    would have kept more.
    """
    assert step.source is not None
    params, ref = step.params, step.source.everywhere
    columns = recipe_columns(params["recipe"]["name"], params["recipe"]["params"])
    try:
        files, count = ray.get(
            ray.remote(open_rows).options(num_cpus=1).remote(ref, work.outer, columns, params["source"])
        )
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, InputError) else error from None
    turn: Any = functools.partial(tokenise_slice, files, params, str(work.folder(step.inputs.tokenizer)))
    split = make_split(params.get("split", "random"), params["heldout"], params["test"])
    facts: Counter[str] = Counter(dict.fromkeys((*COUNTS, "kept", "tokens", "response_tokens"), 0))
    beyond: dict[str, list[int]] = {name: [] for name in LENGTHS}
    limit = params["limit"] or float("inf")
    with work.progress.bar("prepare", count, "rows") as bar:
        with rows_writer(target) as writer:
            slices = ray.data.range(count, override_num_blocks=-(-count // SLICE)).map_batches(turn, batch_size=SLICE)
            answers: Iterator[Any] = iter(slices.iter_rows())
            for answer in answers:
                if answer["error"]:
                    raise InputError(*json.loads(answer["error"]))
                rows = pa.ipc.open_stream(answer["rows"]).read_all()
                rows = rows.slice(0, min(rows.num_rows, limit - facts["kept"]))
                writer.write_table(rows)
                split.add(rows["source_row"].to_numpy())
                facts.update({name: answer[name] for name in COUNTS} | {"kept": rows.num_rows} | _tokens(rows))
                for name, lengths in beyond.items():
                    lengths += answer[name]
                bar.set(facts["read"])
                if facts["kept"] >= limit:
                    break
        bar.set(count)
    chosen = split.rows()
    if facts["kept"] <= sum(map(len, chosen.values())) or any(
        params[side] and not rows for side, rows in chosen.items()
    ):
        raise _nothing_to_train_on(facts, params)
    write_split(target, **chosen)
    facts["repeated"] = repeated(Rows(target))
    usable = facts["read"] - facts["skipped"] - facts["empty"]
    kept_by = {name: fitting(beyond[name], usable, params[limit]) for name, limit in LENGTHS.items() if beyond[name]}
    return dict(facts) | {"train": facts["kept"] - sum(map(len, chosen.values()))} | kept_by


def _tokens(rows: pa.Table) -> dict[str, int]:
    everything = sum(len(chunk.flatten()) for chunk in rows["input_ids"].chunks)
    return {"tokens": everything, "response_tokens": everything - sum(rows["n_prompt"].to_pylist())}


def _nothing_to_train_on(facts: Counter[str], params: dict[str, Any]) -> InputError:
    lost = (
        f"{facts['skipped']} left out by the recipe, {facts['empty']} without a response, {facts['long']} with a long"
        " prompt"
    )
    if not facts["kept"]:
        return InputError("data", f"no usable row among {facts['read']} ({lost})", "look at recipe and max_prompt")
    wanted = params["heldout"] + params["test"]
    return InputError("data.heldout", f"{wanted} of {facts['kept']} usable rows ({lost})", "leave rows to train on")


def tokenise_slice(files: list[str], params: dict[str, Any], tokenizer_folder: str, batch: dict[str, Any]) -> pa.Table:
    """A slice of the source, by row numbers, as one row: an Arrow stream of prepared rows, and the slice's counts.

    What is wrong with the input comes back as `error`: raised here, it would reach the user inside a Ray traceback.
    """
    counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
    beyond = Beyond()
    try:
        examples = _examples(read_rows(files, batch["id"]), params["recipe"])
        template, tokenizer = open_template(params["template"]), _tokenizer(tokenizer_folder)
        before = " " if declared(declare.Template, params["template"]["name"]).space else ""
        require_closed(examples.values(), template, tokenizer)
        limits = (params["max_prompt"], params["max_length"])
        decoder = decoder_window(Path(tokenizer_folder))
        tokens = tokenise(list(examples.values()), template, tokenizer, *limits, before, beyond, decoder)
        for number, rows in zip(examples, tokens, strict=True):
            if any(row.n_prompt < 1 for row in rows):
                raise no_prompt(number)
    except InputError as error:
        return _answer(b"", counts, beyond, json.dumps([error.field, error.found, error.allowed]))
    empty = sum(isinstance(example, Example) and not example.response for example in examples.values())
    counts |= {"read": len(batch["id"]), "skipped": len(batch["id"]) - len(examples), "empty": empty}
    counts |= {"long": tokens.count([]) - empty, "truncated": sum(row.truncated for rows in tokens for row in rows)}
    counts["unasked"] = sum(
        bool(rows) and isinstance(example, Example) and not (example.instruction or example.context)
        for example, rows in zip(examples.values(), tokens, strict=True)
    )
    made = [
        (number, row, example) for (number, example), rows in zip(examples.items(), tokens, strict=True) for row in rows
    ]
    return _answer(_stream(made), counts, beyond)


def _answer(rows: bytes, counts: dict[str, int], beyond: Beyond, error: str = "") -> pa.Table:
    return pa.table(
        {"rows": pa.array([rows], pa.large_binary()), "error": [error]}
        | {name: [count] for name, count in counts.items()}
        | {name: pa.array([getattr(beyond, name)], pa.list_(pa.int32())) for name in LENGTHS}
    )


def _examples(rows: dict[int, dict[str, Any]], recipe: dict[str, Any]) -> dict[int, Example | Document]:
    """What the recipe makes of source rows, by their numbers; without those that it leaves out."""
    make = load(declare.Recipe, recipe["name"])
    examples = {}
    for number, row in rows.items():
        try:
            examples[number] = make(row, **recipe["params"])
        except InputError as error:
            raise InputError(error.field, f"{error.found} in row {number + 1}", error.allowed) from None
    return {number: example for number, example in examples.items() if example is not None}


def require_closed(
    examples: Iterable[Example | Document], template: Any, tokenizer: Any, whose: str = "the prompt"
) -> None:
    """Responses behind a prompt that has opened a thought would be learned, and later told apart, as thoughts."""
    first = next((example for example in examples if isinstance(example, Example) and example.response), None)
    if first and (marks := opened_by(template(first, tokenizer))) and not marks.closing.search(first.response):
        found = f"{whose} opens a thought, and the responses have no {marks.token} that ends it"
        raise InputError(
            "data.template", found, "write {name: chat, close_thought: true}, or use the template 'alpaca'"
        )


def _stream(made: list[tuple[int, Tokenised, Example | Document]]) -> bytes:
    """Prepared rows as an Arrow stream."""
    texts = [example.__dict__ if isinstance(example, Example) else {} for _, _, example in made]
    columns = [
        [number for number, _, _ in made],
        [row.input_ids for _, row, _ in made],
        [row.n_prompt for _, row, _ in made],
    ]
    columns += [[text.get(name) for text in texts] for name in SCHEMA.names[3:]]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_table(pa.table(columns, schema=SCHEMA))
    return sink.getvalue().to_pybytes()


@functools.cache
def _tokenizer(folder: str) -> Any:
    return load_tokenizer(Path(folder))
