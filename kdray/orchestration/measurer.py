"""One measurement of a model on a task, as an actor does it: what it needs for that, and how its numbers come about.

The requests of a benchmark are all built before the first is answered, and answered in parts, which outlive a killed
run.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from kdray.artifacts.parts import parts
from kdray.artifacts.requests import read_requests, write_requests
from kdray.artifacts.rows import Rows
from kdray.artifacts.scores import write_details, write_factual, write_scores
from kdray.artifacts.source import LabelSource
from kdray.data.estimates import pooled_mean
from kdray.distill.across import Across
from kdray.distill.labels import vocabulary
from kdray.distill.signals import open_signal
from kdray.distill.student import Student
from kdray.lens.factual import measured_rate
from kdray.models.head import ResponseModel
from kdray.models.load import load_tokenizer, own_device
from kdray.models.loaded import Load, Loaded
from kdray.orchestration.pools import Item
from kdray.score.answers import Given, Metric, is_unfinished, load_metric, score_answers
from kdray.score.heldout import heldout_sums
from kdray.score.kept import read_kept
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.metric_names import CALIBRATION

Scored = tuple[dict[str, Any], list[dict[str, Any]]]  # {metric: {value, stderr, n}}, and the rows behind them


@dataclass(frozen=True, kw_only=True)
class Measurement(Item):
    """Writes scores and rows into the folder `target`."""

    target: Path

    @property
    def bound(self) -> str:
        """A benchmark's sum reads the parts before it."""
        return self.key


@dataclass(frozen=True, kw_only=True)
class OfModel(Measurement):
    """What the model in a folder, in this dtype, has to be loaded for."""

    model: Path
    dtype: str

    @property
    def loads(self) -> Path:
        return self.model


@dataclass(frozen=True, kw_only=True)
class BenchmarkSum(OfModel):
    """A benchmark's sum, once its parts are there."""

    task: str
    setting: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class BenchmarkPart(BenchmarkSum):
    """The answers to some of a benchmark's requests."""

    index: int


@dataclass(frozen=True, kw_only=True)
class HeldoutRows(OfModel):
    """Log-likelihoods of held-out rows."""

    data: Path
    soft_labels: tuple[LabelSource, ...]
    limit: int | None


@dataclass(frozen=True, kw_only=True)
class Rating(OfModel):
    """The factual rate of kept answers."""

    outputs: Path
    lens: Path


@dataclass(frozen=True)
class MetricUse:
    """A metric with its parameters, and the folders of its models by the parameters that name them."""

    name: str
    params: Mapping[str, Any]
    models: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AnswerMetrics(Measurement):
    """Metrics of kept answers; `answerer` is the model that gave them, `samples` are more answers of its to the same
    prompts. `dtype` is that in which a metric asks the answerer, None where none does.
    """

    outputs: Path
    answerer: Path
    dtype: str | None = None
    samples: tuple[Path, ...] = ()
    metrics: tuple[MetricUse, ...]
    count_empty: bool = True
    cache: Path

    @property
    def loads(self) -> object:
        return self.answerer if self.dtype else [use.models for use in self.metrics if use.models] or None


class Measurer:
    """Does one measurement, or one part of it, of a model that `load` gives."""

    def __init__(self, load: Load) -> None:
        self.device, self.load = own_device(), load
        self._metric = functools.lru_cache(maxsize=4)(self._load_metric)

    def __call__(self, item: Measurement) -> None:
        if isinstance(item, BenchmarkPart):
            self.answer(item)
            return
        scores, rows = self._scored(item)
        write_scores(item.target, scores, rows)

    def _scored(self, item: Measurement) -> Scored:
        match item:
            case BenchmarkSum():
                return _summed(item)
            case HeldoutRows():
                return self._heldout(item)
            case Rating():
                return self._rate(item)
            case AnswerMetrics():
                return self._answers(item)
        raise TypeError(item)

    def answer(self, item: BenchmarkPart) -> None:
        """Answer some of a benchmark's requests and keep the answers; not again where a killed actor had done so."""
        if item.index not in parts(item.target):
            benchmark, loaded = benchmark_of(item), self.load(item.model, item.dtype)
            shared = loaded.shared if benchmark.setting.likelihood == "shared_prefix" else None
            rows = benchmark.answer(item.index, loaded.model, loaded.tokenizer, shared)
            write_requests(item.target, item.index, rows)

    def _heldout(self, item: HeldoutRows) -> Scored:
        loaded, data = self.load(item.model, item.dtype), Rows(item.data)
        scored, rows = ResponseModel(loaded.model), []
        signal = open_signal(item.soft_labels, data, scored.device, getattr(torch, item.dtype))
        assert not isinstance(signal, Across)  # of other tokens no divergence is asked for
        size = vocabulary(len(loaded.tokenizer), scored.head, signal)
        for row in data.heldout[: item.limit].tolist():
            sums = heldout_sums(Student(scored), data, [[row]], signal, size, scored.device, scored.start)
            ce, kl, tokens = sums.tolist()
            rows.append({"example": row, "tokens": int(tokens), "ce": ce / tokens, "kl": kl / tokens})
        metrics = ["ce", "kl"] if signal else ["ce"]
        counts = [row["tokens"] for row in rows]
        return {metric: pooled_mean([row[metric] for row in rows], counts) for metric in metrics}, rows

    def _rate(self, item: Rating) -> Scored:
        loaded = self.load(item.model, item.dtype)
        answers = read_kept(item.outputs, lambda: loaded.tokenizer)
        result = measured_rate(loaded.model, loaded.tokenizer, answers, item.lens)
        write_factual(item.target, result.facts)
        return dict(result.scores), [dict(row) for row in result.rows]

    def _answers(self, item: AnswerMetrics) -> Scored:
        # One that asks the answerer is not kept: it would keep the model.
        metric = (
            functools.partial(self._load_metric, answerer=self.load(item.answerer, item.dtype))
            if item.dtype
            else self._metric
        )
        metrics = [metric(json.dumps(vars(use), default=str), item.cache) for use in item.metrics]
        tokenizer = functools.cache(lambda: load_tokenizer(item.answerer))
        rows = read_kept(item.outputs, tokenizer)
        for drawn in item.samples:
            for row, sample in zip(rows, read_kept(drawn, tokenizer), strict=True):
                row.setdefault("samples", []).extend(
                    [] if sample["error"] or is_unfinished(sample) else [sample["answer"]]
                )
        counts = [name for use in item.metrics for name in declared(declare.Metric, use.name).counts]
        scores, scored = score_answers(rows, metrics, count_empty=item.count_empty, counts=counts)
        if counts:
            write_details(item.target, {"counts": {name: sum(row.get(name) or 0 for row in scored) for name in counts}})
        return scores, scored

    def _load_metric(self, metric: str, cache: Path, answerer: Loaded | None = None) -> Metric:
        """A metric of one step, kept for the next ones: those of a metric with a model follow each other."""
        use = json.loads(metric)
        models = {name: Path(folder) for name, folder in use["models"].items()}
        given = Given(models, self.device, cache, answerer)
        return load_metric(use["name"], use["params"], given)


def _summed(item: BenchmarkSum) -> Scored:
    """The sum of a benchmark's answers, once all of them are there."""
    scores, rows, details = benchmark_of(item).scores(read_requests(item.target))
    write_details(item.target, details)
    shown = [*declared(declare.Task, item.task).short, *CALIBRATION]
    return {name: score for name, score in scores.items() if ":" in item.task or name in shown}, rows


def benchmark_of(item: BenchmarkSum) -> Any:
    """The benchmark of a part or a sum, built once in a process."""
    # Imported where it is used: lm-eval takes seconds to load, and measurements of kept answers do without it.
    from kdray.score.benchmark import Setting, open_benchmark

    return open_benchmark(Setting(**item.setting))
