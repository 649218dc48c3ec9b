"""prepare: the data source as tokenised rows with a fixed order, split into training and held-out rows.

A streaming Ray Data pipeline: tasks read slices of the memory-mapped source, the driver appends what comes
back, in order, to one Arrow file. Memory does not grow with the number of rows.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from kdray.data.rows import FILE, SCHEMA, SPLIT, split_rows
from kdray.data.sources import open_source
from kdray.data.tokenise import tokenise
from kdray.models.load import load_tokenizer
from kdray.plan import Step
from kdray.spec.errors import InputError
from kdray.stages.work import Work

VERSION = 1
SLICE = 256  # source rows a task turns into tokens


def prepare(steps: list[Step], work: Work) -> None:
    """Make the missing ones of `steps`."""
    for step in steps:
        with work.claim([step]) as claimed:
            for _, attempt in claimed:
                facts = _prepare(step, work, attempt.path)
                work.seal(step, attempt, None, **facts)
                work.progress.say(
                    f"data: {facts['kept']} rows kept of {facts['read']} read ({facts['skipped']} left out by the recipe, "
                    f"{facts['dropped']} with a long prompt or no response, {facts['truncated']} truncated)"
                )


def _prepare(step: Step, work: Work, target: Path) -> dict[str, int]:
    import ray.data

    assert step.source is not None
    params = step.params
    source = open_source(step.source, work.outer)
    files = [entry["filename"] for entry in source.cache_files]
    turn: Any = functools.partial(_tokenise, files, params, str(work.folder(step.inputs["tokenizer"])))
    counts: Counter[str] = Counter(read=0, kept=0, skipped=0, dropped=0, truncated=0)
    limit = params["limit"] or len(source)
    blocks = max(1, -(-len(source) // SLICE))
    with work.progress.bar("prepare", len(source), "rows") as bar, pa.OSFile(str(target / FILE), "wb") as sink:
        with pa.ipc.new_file(sink, SCHEMA) as writer:
            rows = ray.data.range(len(source), override_num_blocks=blocks).map_batches(turn, batch_size=SLICE)
            batches: Iterator[Any] = iter(rows.iter_batches(batch_size=None, batch_format="pyarrow"))
            for batch in batches:
                counts.update({key: int(batch[key].to_numpy().sum()) for key in counts if key != "kept"})
                kept = batch.filter(batch["kept"]).slice(0, limit - counts["kept"]).select(SCHEMA.names).cast(SCHEMA)
                writer.write_table(kept)
                counts["kept"] += kept.num_rows
                bar.set(counts["read"])
                if counts["kept"] >= limit:
                    break
        bar.set(len(source))
    if counts["kept"] <= params["heldout"]:
        raise InputError("data.heldout", f"{params['heldout']} of {counts['kept']} usable rows", "leave rows to train on")
    (target / SPLIT).write_text(json.dumps(split_rows(counts["kept"], params["heldout"])))
    return dict(counts)


def _tokenise(files: list[str], params: dict[str, Any], tokenizer_folder: str, batch: dict[str, Any]) -> pa.Table:
    """Source rows by number -> prepared rows; what became of each row is kept beside it for the counts."""
    tokenizer, source = _tokenizer(tokenizer_folder), _source(tuple(files))
    recipe = _component("recipes", params["recipe"]["name"])
    template = _component("templates", params["template"]["name"])
    out = []
    for number in batch["id"].tolist():
        row = source[number]
        record: dict[str, Any] = dict.fromkeys(SCHEMA.names) | {"source_row": number, "read": 1, "kept": False}
        record |= {"skipped": 0, "dropped": 0, "truncated": 0}
        try:
            example = recipe(row, **params["recipe"]["params"])
        except KeyError as error:
            raise InputError("data.recipe", f"no column {error} in the data", f"it has {', '.join(source.column_names)}") from None
        tokens = example and tokenise(example, template, tokenizer, params["max_prompt"], params["max_length"])
        if example is None or tokens is None:
            record |= {"skipped": int(example is None), "dropped": int(example is not None)}
        else:
            record |= {"kept": True, "input_ids": tokens.input_ids, "n_prompt": tokens.n_prompt}
            record |= {"truncated": int(tokens.truncated), **example.__dict__}
        out.append(record)
    fields = [*SCHEMA, *((name, pa.int64()) for name in ("read", "skipped", "dropped", "truncated")), ("kept", pa.bool_())]
    return pa.Table.from_pylist(out, schema=pa.schema(fields))


def _component(folder: str, name: str) -> Any:
    return getattr(importlib.import_module(f"kdray.data.{folder}.{name}"), name)


@functools.cache
def _tokenizer(folder: str) -> Any:
    return load_tokenizer(Path(folder))


@functools.cache
def _source(files: tuple[str, ...]) -> Any:
    import datasets

    return datasets.concatenate_datasets([datasets.Dataset.from_file(file) for file in files])
