"""measure: scores of a model on a task, from kept answers or from its log-likelihoods.

Every artifact holds `scores.json`, {metric: {value, stderr, n}}, and `examples.parquet`, one row an example.
"""

from __future__ import annotations

import functools
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from kdray.data.rows import Rows
from kdray.distill.signals import open_signal
from kdray.distill.student import Student
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder
from kdray.plan import Step
from kdray.score.answers import Given, Metric, load_metric, score_answers
from kdray.score.choices import lay_down_task, score_choices
from kdray.score.heldout import heldout_sums
from kdray.spec.components import component
from kdray.stages.generate import read_answers
from kdray.stages.pipeline import Item, run_pipeline
from kdray.stages.work import Work
from kdray.store import io

VERSION = 1
SCORES, EXAMPLES = "scores.json", "examples.parquet"


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
                        work.seal(step, attempt, [attempt.path / SCORES, attempt.path / EXAMPLES])
                    bar.advance()
                    work.after()
            io.delete(scratch)


class Measurer:
    """Does one measurement; keeps the model it loaded last."""

    def __init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.load = functools.lru_cache(maxsize=1)(load_folder)
        self._metric = functools.lru_cache(maxsize=4)(self._load_metric)

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

    def _answers(self, item: Item) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        metrics = [self._metric(json.dumps(metric), item["cache"]) for metric in item["metrics"]]
        rows = read_answers(Path(item["outputs"]))
        for drawn in item["samples"]:
            for row, sample in zip(rows, read_answers(Path(drawn)), strict=True):
                row.setdefault("samples", []).append(sample["answer"])
        return score_answers(rows, metrics, count_empty=item["count_empty"])

    def _load_metric(self, metric: str, cache: str) -> Metric:
        """A metric of one step, kept for the next ones: those of a metric with a model follow each other."""
        use = json.loads(metric)
        given = Given({name: Path(folder) for name, folder in use["models"].items()}, self.device, Path(cache))
        return load_metric(use["name"], use["params"], given)


def _model(step: Step, work: Work) -> str:
    """What the steps of one group share, so that it is loaded once: the model that scores, or else the answers."""
    scoring = [needed for name, needed in step.inputs.items() if name == "model" or ".model" in name]
    return str(work.folder(scoring[0] if scoring else step.inputs["outputs"]))


def _answers(step: Step, work: Work) -> Item:
    """What the metrics of kept answers need; the parameters that change no number come from the grid as it is now."""
    now = {use.name: use.params for use in work.plan.grid.score.metrics}
    metrics = []
    for metric in step.params["metrics"]:
        name = metric["name"]
        runtime = component("metric", name, "score.metrics").constants.get("RUNTIME", ())
        folders = {key.partition(".")[2]: str(work.folder(made)) for key, made in step.inputs.items() if key.startswith(f"{name}.")}
        params = metric["params"] | {key: value for key, value in now.get(name, {}).items() if key in runtime}
        metrics.append({"name": name, "params": params, "models": folders})
    return {
        "kind": "answers",
        "outputs": str(work.folder(step.inputs["outputs"])),
        "samples": [str(work.folder(drawn)) for key, drawn in step.inputs.items() if key.startswith("samples.")],
        "metrics": metrics,
        "count_empty": not any(component("metric", metric["name"], "score.metrics").constants.get("SLOW") for metric in metrics),
        "cache": str(work.store.root / "cache"),
    }


def _item(step: Step, target: Path, work: Work, scratch: Path) -> Item:
    item: Item = {"key": step.key.id, "target": str(target)}
    if "outputs" in step.inputs:
        return item | _answers(step, work)
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
