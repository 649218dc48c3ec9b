"""generate: the answers of every model on every generation task, kept for good, so that metrics can come later.

A batch in which one prompt fails is answered prompt by prompt: the failing row is kept with its `error`, and its
neighbours with their answers.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from kdray.data.known import unknown
from kdray.data.rows import Rows
from kdray.models.load import TOKENIZER_FILES, Latest, load_placed, load_tokenizer
from kdray.plan import Step
from kdray.score.answers import FATAL
from kdray.score.decodings import Decoding, open_decoding
from kdray.score.prompts import Prompt, cut_at_stop, grid_prompts, stops_of, task_prompts
from kdray.spec.components import component
from kdray.spec.decodings import GUIDE
from kdray.spec.errors import InputError
from kdray.spec.folders import read_config, window_of
from kdray.stages.costs import SECONDS, costs, measured_cost
from kdray.stages.pipeline import Item, carry_over, parts, run_pipeline, spread, write_part
from kdray.stages.vllm import answer_by_vllm
from kdray.stages.work import Work

VERSION = 3
SCHEMA = pa.schema(
    [
        ("example", pa.int64()),
        ("input_ids", pa.list_(pa.int32())),
        ("question", pa.string()),
        ("source", pa.string()),
        ("references", pa.list_(pa.string())),
        ("wrong", pa.list_(pa.string())),
        ("output_ids", pa.list_(pa.int32())),
        ("answer", pa.string()),
        ("error", pa.string()),  # null where there is an answer
    ]
)


def generate(steps: list[Step], work: Work) -> None:
    """Make the missing ones of `steps`: batches of prompts, grouped by model."""
    while True:
        with work.claim(steps) as claimed:
            if not claimed:
                return
            prompts: dict[str, list[list[Prompt]]] = {}
            groups, expected = defaultdict(list), {}
            for step, attempt in claimed:
                asked, present = _asked(step, work), carry_over(attempt)
                batches = prompts.get(asked) or prompts.setdefault(asked, _batches(step, work))
                expected[step.key.id] = len(batches)
                model = str(work.folder(step.inputs["model"]))
                gpus, decoding = work.gpus_for(step.inputs["model"], step.params["dtype"]), _decoding(step, work)
                for i, batch in enumerate(batches):
                    if i not in present:
                        groups[model].append(_item(step, attempt.path, model, i, batch) | {"gpus": gpus, "decoding": decoding})
            errors: dict[str, str] = {}
            with work.progress.bar("generate", sum(map(len, groups.values())), "batches") as bar:
                if work.plan.grid.score.engine == "vllm":
                    answered = answer_by_vllm(groups, keep, work.resources)
                else:
                    answered = run_pipeline(spread(list(groups.values()), work.resources), Generator, work.resources)
                for key, error in answered:
                    errors |= {key: error} if error else {}
                    bar.advance()
            for step, attempt in claimed:
                if step.key.id in errors:
                    work.fail(step, errors[step.key.id])
                elif len(parts(attempt.path)) == expected[step.key.id]:
                    work.seal(step, attempt, None, **measured_cost(attempt.path))
            for line in costs(work.plan.scores, work.store):
                work.progress.say(line)


class Generator:
    """Answers one batch of prompts; keeps the model it loaded last."""

    def __init__(self) -> None:
        self.load = Latest(load_placed)

    def __call__(self, item: Item) -> None:
        model, tokenizer = self.load(Path(item["model"]), getattr(torch, item["dtype"]))
        prompts = [Prompt(**prompt) for prompt in item["prompts"]]
        decode, began = open_decoding(**item["decoding"]), time.perf_counter()
        answers = answer_all(decode, model, tokenizer, prompts, item["max_new_tokens"])
        keep(item, answers, time.perf_counter() - began, tokenizer)


def keep(item: Item, answers: Sequence[list[int] | str], seconds: float, tokenizer: Any) -> None:
    """Write the answers to a batch of prompts as a part; `answers` are token ids, or why there is none."""
    rows = []
    for prompt, answer in zip(item["prompts"], answers, strict=True):
        row = {**prompt, "output_ids": [], "answer": "", "error": None}
        if isinstance(answer, str):
            row["error"] = answer
        else:
            row["output_ids"], row["answer"] = cut_at_stop(answer, item["stops"], tokenizer)
        rows.append(row)
    table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata({SECONDS: f"{seconds:.3f}"}))
    write_part(Path(item["target"]), item["index"], ".parquet", lambda path: pq.write_table(table, path))


def answer_all(decode: Decoding, model: Any, tokenizer: Any, prompts: Sequence[Prompt], max_new_tokens: int) -> list[list[int] | str]:
    """The answer to every prompt, as token ids, or in its place why there is none.

    Raises:
        Exception: several prompts fail, each by itself, or memory is short: no row is to blame, another attempt may do better.
    """
    try:
        return list(decode(model, tokenizer, prompts, max_new_tokens))
    except (*FATAL, InputError):
        raise
    except Exception as failure:
        if len(prompts) == 1:
            return [f"{type(failure).__name__}: {failure}"]
        one_by_one = [answer for prompt in prompts for answer in answer_all(decode, model, tokenizer, [prompt], max_new_tokens)]
        if all(isinstance(answer, str) for answer in one_by_one):
            raise
        return one_by_one


def read_answers(folder: Path) -> list[dict[str, Any]]:
    """All answers of a `generate` artifact in the order of the examples.

    Raises:
        InputError: a part is damaged, or holds something else.
    """
    rows: list[dict[str, Any]] = []
    try:
        for path in parts(folder).values():
            table = pq.read_table(path)
            if missing := [name for name in SCHEMA.names if name not in table.column_names]:
                raise ValueError(f"no column '{missing[0]}'")
            table = table.select(SCHEMA.names).cast(SCHEMA)
            if empty := [name for name in SCHEMA.names[:-1] if table[name].null_count]:
                raise ValueError(f"nothing in column '{empty[0]}'")
            rows += table.to_pylist()
    except (ValueError, TypeError, OSError, pa.ArrowNotImplementedError) as error:
        raise InputError("answers", f"{folder} is damaged ({error})", "generate them again") from None
    return sorted(rows, key=lambda row: row["example"])


def _batches(step: Step, work: Work) -> list[list[Prompt]]:
    """The task's prompts, longest first, cut into batches: the same whatever is done already."""
    task, params = step.params["task"], step.params
    folder = work.folder(step.inputs["model"])
    window = window_of(folder)
    room = None if window is None else window - task["params"]["max_new_tokens"]
    if "data" in step.inputs:
        side = component("task", task["name"], "score.tasks").constants["ROWS"]
        prompts = grid_prompts(task["name"], Rows(work.folder(step.inputs["data"])), side, task["params"]["limit"], room)
    else:
        template = None
        if "template" in params:
            name = params["template"]["name"]
            template = getattr(importlib.import_module(f"kdray.data.templates.{name}"), name)
        assert step.source is not None
        prompts = task_prompts(task["name"], task["params"], step.source, work.outer, load_tokenizer(folder), template, room)
    _require_known(prompts, folder, task["name"])
    prompts.sort(key=lambda prompt: (-len(prompt.input_ids), prompt.example))
    return [prompts[i : i + params["batch"]] for i in range(0, len(prompts), params["batch"])]


def _require_known(prompts: Sequence[Prompt], folder: Path, task: str) -> None:
    """Whether the model in a folder has an embedding of every token of the prompts."""
    size = read_config(folder).get("vocab_size")
    largest = [(max(prompt.input_ids, default=0), prompt.example + 1) for prompt in prompts]
    if strange := [(token, row) for token, row in largest if size and token >= size]:
        raise unknown(f"score.tasks.{task}", size, strange[0][0], load_tokenizer(folder), (row for _, row in strange))


def _asked(step: Step, work: Work) -> str:
    """What the prompts depend on: all students of a grid share them, models with other tokenizers do not."""
    folder = work.folder(step.inputs["model"])
    files = [(folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()]
    kind = {key: step.params[key] for key in ("task", "batch", "template") if key in step.params}
    sizes = [window_of(folder), read_config(folder).get("vocab_size")]
    return json.dumps([kind, sizes, [hashlib.sha256(file).hexdigest() for file in files]])


def _item(step: Step, target: Path, model: str, index: int, batch: list[Prompt]) -> Item:
    return {
        "key": step.key.id,
        "target": str(target),
        "index": index,
        "model": model,
        "dtype": step.params["dtype"],
        "max_new_tokens": step.params["task"]["params"]["max_new_tokens"],
        "stops": stops_of(step.params["task"]["name"], step.params["task"]["params"]),
        "prompts": [prompt.__dict__ for prompt in batch],
    }


def _decoding(step: Step, work: Work) -> dict[str, Any]:
    """Name and parameters of the step's decoding, files and the grid's lens by their paths."""
    decoding = step.params["decoding"]
    if isinstance(decoding, str):
        return {"name": decoding, "params": {}}
    paths = {name: Path(ref.name).resolve() for name, ref in step.files.items()}
    if GUIDE in step.inputs:
        paths[GUIDE] = work.folder(step.inputs[GUIDE])
    return {"name": decoding["name"], "params": decoding["params"] | {name: str(path) for name, path in paths.items()}}
