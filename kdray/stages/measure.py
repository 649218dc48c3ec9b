"""measure: scores of a model on a task, from kept answers or from its log-likelihoods.

Every artifact holds `scores.json`, {metric: {value, stderr, n}}, and `examples.parquet`, one row an example; that of a factual
rate also `factual.json`, its companions and what it depends on.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from kdray.data.rows import Rows
from kdray.distill.signals import open_signal
from kdray.distill.student import Student
from kdray.lens.factual import measured_rate
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder
from kdray.plan import Step
from kdray.score.choices import lay_down_task, score_choices
from kdray.score.heldout import heldout_sums
from kdray.spec.components import component
from kdray.stages.generate import read_answers
from kdray.stages.pipeline import Item, run_pipeline
from kdray.stages.work import Work
from kdray.store import io

VERSION = 1
SCORES, EXAMPLES, FACTUAL = "scores.json", "examples.parquet", "factual.json"


def measure(steps: list[Step], work: Work) -> None:
    """Make the missing ones of `steps`, grouped by model."""
    while True:
        with work.claim(steps) as claimed:
            if not claimed:
                return
            scratch = work.store.root / "scratch" / f"tasks-{work.locks.owner}"
            groups: dict[str, list[Item]] = defaultdict(list)
            for step, attempt in claimed:
                groups[_model(step, work)].append(_item(step, attempt.path, work, scratch))
            with work.progress.bar("measure", len(claimed), "scores") as bar:
                for key, error in run_pipeline(list(groups.values()), Measurer, work.resources):
                    step, attempt = next(pair for pair in claimed if pair[0].key.id == key)
                    if error:
                        work.fail(step, error)
                    else:
                        work.seal(step, attempt, [path for name in (SCORES, EXAMPLES, FACTUAL) if (path := attempt.path / name).is_file()])
                    bar.advance()
                    work.after()
            io.delete(scratch)


class Measurer:
    """Does one measurement; keeps the model it loaded last."""

    def __init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.load = functools.lru_cache(maxsize=1)(load_folder)

    def __call__(self, item: Item) -> None:
        scores, rows = getattr(self, f"_{item['kind']}")(item)
        target = Path(item["target"])
        pq.write_table(pa.Table.from_pylist(rows), target / EXAMPLES)
        io.put_json(target / SCORES, scores)

    def _model(self, item: Item) -> tuple[Any, Any]:
        return self.load(Path(item["model"]), getattr(torch, item["dtype"]), self.device)

    def _choices(self, item: Item) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        model, tokenizer = self._model(item)
        return score_choices(model, tokenizer, item["task"], item["params"], Path(item["folder"]), item["batch"])

    def _heldout(self, item: Item) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        model, tokenizer = self._model(item)
        data = Rows(Path(item["data"]))
        signal = open_signal(item["soft_labels"], data, self.device, getattr(torch, item["dtype"]))
        student, rows = Student(ResponseModel(model)), []
        for row in data.heldout[: item["params"]["limit"]].tolist():
            ce, kl, tokens = heldout_sums(student, data, [[row]], signal, len(tokenizer), self.device).tolist()
            rows.append({"example": row, "tokens": int(tokens), "ce": ce / tokens, "kl": kl / tokens})
        metrics = ["ce", "kl"] if signal else ["ce"]
        return {metric: _token_mean(rows, metric) for metric in metrics}, rows

    def _factual(self, item: Item) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        model, tokenizer = self._model(item)
        result = measured_rate(model, tokenizer, read_answers(Path(item["outputs"])), Path(item["lens"]))
        io.put_json(Path(item["target"]) / FACTUAL, result.facts)
        return dict(result.scores), list(result.rows)

    def _answers(self, item: Item) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        rows = []
        for answer in read_answers(Path(item["outputs"])):
            row = {"example": answer["example"], "empty": not answer["answer"]}
            for name in item["metrics"]:
                metric = getattr(importlib.import_module(f"kdray.score.metrics.{name}"), name)
                row |= metric(answer["answer"], answer["reference"], answer["source"])
            rows.append(row)
        names = [name for name in rows[0] if name not in ("example", "empty")]
        scores = {name: _mean([row[name] for row in rows]) for name in names}
        return scores | {"empty": _mean([100.0 * row["empty"] for row in rows])}, rows


def _model(step: Step, work: Work) -> str:
    """What the steps of one group share: the model, or the answers."""
    return str(work.folder(step.inputs.get("model") or step.inputs["outputs"]))


def _item(step: Step, target: Path, work: Work, scratch: Path) -> Item:
    item: Item = {"key": step.key.id, "target": str(target)}
    if "lens" in step.inputs:
        folders = {name: str(work.folder(needed)) for name, needed in step.inputs.items()}
        return item | folders | {"kind": "factual", "dtype": step.params["dtype"]}
    if "outputs" in step.inputs:
        metrics = [metric["name"] for metric in step.params["metrics"]]
        return item | {"kind": "answers", "outputs": str(work.folder(step.inputs["outputs"])), "metrics": metrics}
    task = step.params["task"]
    item |= {"task": task["name"], "params": task["params"], "batch": step.params["batch"], "dtype": step.params["dtype"]}
    item |= {"kind": component("task", task["name"], "score.tasks").constants["KIND"], "model": _model(step, work)}
    if item["kind"] == "heldout":
        return item | {"data": str(work.folder(step.inputs["data"])), "soft_labels": [vars(source) for source in work.soft_labels(step)]}
    assert step.source is not None
    folder = scratch / task["name"]
    if not folder.is_dir():
        lay_down_task(task["name"], task["params"], step.source, work.outer, folder)
    return item | {"folder": str(folder)}


def _mean(values: list[float]) -> dict[str, float]:
    """The mean over examples with its standard error."""
    stderr = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return {"value": statistics.fmean(values), "stderr": stderr, "n": len(values)}


def _token_mean(rows: list[dict[str, Any]], metric: str) -> dict[str, float]:
    """The mean over all tokens; its standard error is that of a ratio estimate over examples."""
    tokens = sum(row["tokens"] for row in rows)
    value = sum(row[metric] * row["tokens"] for row in rows) / tokens
    spread = sum((row["tokens"] * (row[metric] - value)) ** 2 for row in rows)
    stderr = math.sqrt(spread * len(rows) / max(len(rows) - 1, 1)) / tokens
    return {"value": value, "stderr": stderr, "n": len(rows)}


def read_scores(folder: Path) -> dict[str, dict[str, float]]:
    """The scores of a `measure` artifact."""
    return json.loads((folder / SCORES).read_text())
