"""generate: the answers of every model on every generation task, kept for good, so that metrics can come later."""

from __future__ import annotations

import functools
import importlib
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from kdray.data.rows import Rows
from kdray.models.load import load_folder, load_tokenizer
from kdray.plan import Step
from kdray.score.decodings import open_decoding
from kdray.score.prompts import Prompt, heldout_prompts, task_prompts
from kdray.stages.costs import SECONDS, costs, measured_cost
from kdray.stages.pipeline import Item, carry_over, parts, run_pipeline, write_part
from kdray.stages.work import Work

VERSION = 1


def generate(steps: list[Step], work: Work) -> None:
    """Make the missing ones of `steps`: batches of prompts, grouped by model."""
    while True:
        with work.claim(steps) as claimed:
            if not claimed:
                return
            prompts: dict[str, list[list[Prompt]]] = {}
            groups, expected = defaultdict(list), {}
            for step, attempt in claimed:
                task, present = step.params["task"]["name"], carry_over(attempt)
                batches = prompts.get(task) or prompts.setdefault(task, _batches(step, work))
                expected[step.key.id] = len(batches)
                model = str(work.folder(step.inputs["model"]))
                for i, batch in enumerate(batches):
                    if i not in present:
                        groups[model].append(_item(step, attempt.path, model, i, batch))
            errors: dict[str, str] = {}
            with work.progress.bar("generate", sum(map(len, groups.values())), "batches") as bar:
                for key, error in run_pipeline(list(groups.values()), Generator, work.resources):
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
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.load = functools.lru_cache(maxsize=1)(load_folder)

    def __call__(self, item: Item) -> None:
        model, tokenizer = self.load(Path(item["model"]), getattr(torch, item["dtype"]), self.device)
        prompts = [Prompt(**prompt) for prompt in item["prompts"]]
        decode, began = open_decoding(**item["decoding"]), time.perf_counter()
        answers = decode(model, tokenizer, prompts, item["max_new_tokens"])
        cost = {SECONDS: f"{time.perf_counter() - began:.3f}"}
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        rows = [
            {**prompt.__dict__, "output_ids": ids, "answer": text.strip()}
            for prompt, ids, text in zip(prompts, answers, texts, strict=True)
        ]
        table = pa.Table.from_pylist(rows).replace_schema_metadata(cost)
        write_part(Path(item["target"]), item["index"], ".parquet", lambda path: pq.write_table(table, path))


def read_answers(folder: Path) -> list[dict[str, Any]]:
    """All answers of a `generate` artifact in the order of the examples."""
    rows = [row for path in parts(folder).values() for row in pq.read_table(path).to_pylist()]
    return sorted(rows, key=lambda row: row["example"])


def _batches(step: Step, work: Work) -> list[list[Prompt]]:
    """The task's prompts, longest first, cut into batches: the same whatever is done already."""
    task, params = step.params["task"], step.params
    if "data" in step.inputs:
        prompts = heldout_prompts(Rows(work.folder(step.inputs["data"])), task["params"]["limit"])
    else:
        name = step.params["template"]["name"]
        template = getattr(importlib.import_module(f"kdray.data.templates.{name}"), name)
        tokenizer = load_tokenizer(work.folder(step.inputs["model"]))
        assert step.source is not None
        prompts = task_prompts(task["name"], task["params"], step.source, work.outer, tokenizer, template)
    prompts.sort(key=lambda prompt: (-len(prompt.input_ids), prompt.example))
    return [prompts[i : i + params["batch"]] for i in range(0, len(prompts), params["batch"])]


def _item(step: Step, target: Path, model: str, index: int, batch: list[Prompt]) -> Item:
    return {
        "key": step.key.id,
        "target": str(target),
        "index": index,
        "model": model,
        "dtype": step.params["dtype"],
        "max_new_tokens": step.params["task"]["params"]["max_new_tokens"],
        "decoding": _decoding(step),
        "prompts": [prompt.__dict__ for prompt in batch],
    }


def _decoding(step: Step) -> dict[str, Any]:
    """Name and parameters of the step's decoding, files by their paths."""
    decoding = step.params["decoding"]
    if isinstance(decoding, str):
        return {"name": decoding, "params": {}}
    return {
        "name": decoding["name"],
        "params": decoding["params"] | {name: str(Path(ref.name).resolve()) for name, ref in step.files.items()},
    }
