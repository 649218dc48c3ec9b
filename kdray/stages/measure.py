"""measure: scores of a model on a task, from kept answers or from its log-likelihoods.

The requests of benchmarks are all built before the first is answered, and answered in parts, which outlive a killed
run.
"""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape

from kdray.artifacts.parts import carry_over, parts
from kdray.artifacts.requests import read_requests, write_requests
from kdray.artifacts.rows import Rows
from kdray.artifacts.scores import DETAILS, read_details, score_files, write_details, write_factual, write_scores
from kdray.artifacts.source import LabelSource
from kdray.data.estimates import pooled_mean
from kdray.distill.labels import vocabulary
from kdray.distill.signals import open_signal
from kdray.distill.student import Student
from kdray.lens.factual import measured_rate
from kdray.models.head import ResponseModel
from kdray.models.load import load_tokenizer, own_device
from kdray.models.loaded import Load
from kdray.orchestration.items import Item
from kdray.orchestration.work import Work
from kdray.plan import Step, reading
from kdray.plan.inputs import AnswersInputs, LikelihoodInputs, MeasureInputs, RateInputs
from kdray.score.answers import Given, Metric, is_unfinished, load_metric, score_answers
from kdray.score.choices import TASK, lay_down_examples, lay_down_task, own_name, tokenizer_identity
from kdray.score.heldout import heldout_sums
from kdray.score.kept import read_kept
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.errors import InputError
from kdray.spec.metric_names import CALIBRATION
from kdray.store import Attempt

DECLARED = declare.Stage(version=2)
Scored = tuple[dict[str, Any], list[dict[str, Any]]]  # {metric: {value, stderr, n}}, and the rows behind them


@dataclass(frozen=True, kw_only=True)
class Measurement(Item):
    """Writes scores and rows into the folder `target`."""

    target: Path


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
    prompts.
    """

    outputs: Path
    answerer: Path
    samples: tuple[Path, ...] = ()
    metrics: tuple[MetricUse, ...]
    count_empty: bool = True
    cache: Path

    @property
    def loads(self) -> object:
        return [use.models for use in self.metrics if use.models] or None


def measure(steps: Sequence[Step[MeasureInputs]], work: Work) -> Measuring:
    """What the schedule does of the missing ones of `steps`."""
    return Measuring(steps, work)


class Measuring:
    """Benchmarks in parts, everything else at once, all of one model in a row."""

    def __init__(self, steps: Sequence[Step[MeasureInputs]], work: Work) -> None:
        self.steps, self.work = steps, work
        self.tokenizers: dict[str, str] = {}  # a folder for each tokenizer: models with equal ones share benchmarks
        self.counts: dict[str, int | InputError] = {}  # of the parts of each benchmark

    def begin(self, claimed: Sequence[tuple[Step[MeasureInputs], Attempt]], hands: int) -> list[list[Measurement]]:
        """In groups that one actor does: those of a model or, with more actors than models, of one of its tasks."""
        likelihoods = reading([step for step, _ in claimed], LikelihoodInputs)
        benchmarks = self._benchmarks([step for step in likelihoods if not _is_heldout(step)])
        dealt = len({_loaded(step) for step, _ in claimed}) < hands
        groups: dict[tuple[str, str], list[Measurement]] = defaultdict(list)
        for step, attempt in claimed:
            if step.key.id not in self.work.failed:
                items = _items(step, attempt, self.work, benchmarks)
                groups[_loaded(step), step.key.id if dealt else ""] += items
        return list(groups.values())

    def finish(self, step: Step[MeasureInputs], attempt: Attempt) -> None:
        facts = read_details(attempt.path)
        told = {name: facts[name] for name in ("failed", "unlabelled", "truncated") if name in facts}
        self.work.seal(step, attempt, score_files(attempt.path), **told)
        _tell(step, facts, self.work)

    def _benchmarks(self, steps: Sequence[Step[LikelihoodInputs]]) -> dict[str, tuple[dict[str, Any], int]]:
        """By step: its benchmark, and in how many parts its requests are answered. Each benchmark is built once.

        A step whose benchmark cannot be built fails; the others go on.
        """
        settings: dict[str, dict[str, Any]] = {}
        for step in steps:
            try:
                settings[step.key.id] = _setting(step, self.work, self.work.scratch / "tasks", self.tokenizers)
            except InputError as error:
                self.work.fail(step, str(error))
        self._count({json.dumps(setting): setting for setting in settings.values()})
        found = {}
        for step in steps:
            if (setting := settings.get(step.key.id)) is None:
                continue
            count = self.counts[json.dumps(setting)]
            if isinstance(count, InputError):
                self.work.fail(step, str(count))
            else:
                found[step.key.id] = setting, count
        return found

    def _count(self, settings: Mapping[str, dict[str, Any]]) -> None:
        """Build the benchmarks that have not been counted, each in a Ray task."""
        import ray
        from ray.exceptions import RayTaskError

        build = ray.remote(_count_parts).options(num_cpus=0)  # actors may have all cores
        asked = {key: build.remote(setting) for key, setting in settings.items() if key not in self.counts}
        for key, count in asked.items():
            try:
                self.counts[key] = ray.get(count)
            except RayTaskError as error:
                if not isinstance(error.cause, InputError):
                    raise
                self.counts[key] = error.cause


def _tell(step: Step, facts: Mapping[str, Any], work: Work) -> None:
    """Say what of a task has no score."""
    if facts.get("failed"):
        work.progress.say(
            f"[yellow]{step.slug}[/]: {facts['failed']} questions could not be scored; the column `error` says why"
        )
    if facts.get("unlabelled"):
        reason = next(reason for rows in facts["left_out"].values() for reason in rows.values())
        work.progress.say(
            f"[yellow]{step.slug}[/]: {facts['unlabelled']} rows without a right answer that can be asked are left out;"
            f" {DETAILS} names them (the first: {escape(reason)})"
        )
    if facts.get("truncated"):
        work.progress.say(
            f"[yellow]{step.slug}[/]: {facts['truncated']} requests were cut to the model's window, on the left as"
            " lm-eval does"
        )


def _count_parts(setting: dict[str, Any]) -> int:
    """How many parts a benchmark has.

    Raises:
        InputError: its requests cannot be built from the data.
    """
    from kdray.score.benchmark import Setting, open_benchmark

    try:
        return len(open_benchmark(Setting(**setting)).parts)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - a missing column, a file that cannot be read: whatever lm-eval or datasets make of it
        reason = (str(error).splitlines() or [""])[0]
        task = setting["name"].removeprefix("kdray_")
        raise InputError(
            f"score.tasks.{task}", f"no requests ({type(error).__name__}: {reason})", "check its source"
        ) from None


def _setting(step: Step[LikelihoodInputs], work: Work, scratch: Path, tokenizers: dict[str, str]) -> dict[str, Any]:
    """The fields of a benchmark's `Setting`."""
    task, model = step.params["task"], work.folder(step.inputs.model)
    folder, name = scratch / task["name"].replace(":", "-"), task["name"].partition(":")[2]
    if step.source is not None:
        if not (folder / TASK).is_file():
            lay_down_task(task["name"], task["params"], step.source, work.outer, folder, task["source"])
        name = own_name(task["name"])
    examples = folder / "examples" if "shots_source" in step.files else None
    if examples and not examples.is_dir():
        lay_down_examples(task["name"], task["params"], step.files["shots_source"], work.outer, folder)
    tokenizer = tokenizers.setdefault(tokenizer_identity(model), str(model))
    fields = {key: task["params"][key] for key in ("shots", "limit", "chat_template")}
    fields |= {"chat": json.dumps(step.params["template"]["params"])} if "template" in step.params else {}
    fields |= {"batch": step.params["batch"], "likelihood": step.params["likelihood"], "tokenizer": tokenizer}
    fields |= {"name": name, "folder": str(folder) if step.source is not None else None}
    fields |= {"either_case": True} if task["params"].get("either_case") else {}
    if "decoding" in step.params:
        under = step.params["decoding"]
        fields |= {
            "under": json.dumps(
                {"name": under["name"], "params": under["params"] | {"softmax": step.params["softmax"]}}
            )
        }
    return fields | {"examples": examples and str(examples)}


class Measurer:
    """Does one measurement, or one part of it, of a model that `load` gives."""

    def __init__(self, load: Load) -> None:
        self.device, self.load = own_device(), load
        self._metric = functools.lru_cache(maxsize=4)(self._load_metric)

    def __call__(self, item: Measurement) -> None:
        if isinstance(item, BenchmarkPart):
            self._answer(item)
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

    def _answer(self, item: BenchmarkPart) -> None:
        """Answer some of a benchmark's requests and keep the answers; not again where a killed actor had done so."""
        if item.index not in parts(item.target):
            benchmark, loaded = _open(item), self.load(item.model, item.dtype)
            shared = loaded.shared if benchmark.setting.likelihood == "shared_prefix" else None
            rows = benchmark.answer(item.index, loaded.model, loaded.tokenizer, shared)
            write_requests(item.target, item.index, rows)

    def _heldout(self, item: HeldoutRows) -> Scored:
        loaded, data = self.load(item.model, item.dtype), Rows(item.data)
        scored, rows = ResponseModel(loaded.model), []
        signal = open_signal(item.soft_labels, data, scored.device, getattr(torch, item.dtype))
        size = vocabulary(len(loaded.tokenizer), scored.head, signal)
        for row in data.heldout[: item.limit].tolist():
            ce, kl, tokens = heldout_sums(Student(scored), data, [[row]], signal, size, scored.device).tolist()
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
        metrics = [self._metric(json.dumps(vars(use), default=str), item.cache) for use in item.metrics]
        tokenizer = functools.cache(lambda: load_tokenizer(item.answerer))
        rows = read_kept(item.outputs, tokenizer)
        for drawn in item.samples:
            for row, sample in zip(rows, read_kept(drawn, tokenizer), strict=True):
                row.setdefault("samples", []).extend(
                    [] if sample["error"] or is_unfinished(sample) else [sample["answer"]]
                )
        return score_answers(rows, metrics, count_empty=item.count_empty)

    def _load_metric(self, metric: str, cache: Path) -> Metric:
        """A metric of one step, kept for the next ones: those of a metric with a model follow each other."""
        use = json.loads(metric)
        given = Given({name: Path(folder) for name, folder in use["models"].items()}, self.device, cache)
        return load_metric(use["name"], use["params"], given)


def _summed(item: BenchmarkSum) -> Scored:
    """The sum of a benchmark's answers, once all of them are there."""
    scores, rows, details = _open(item).scores(read_requests(item.target))
    write_details(item.target, details)
    shown = [*declared(declare.Task, item.task).short, *CALIBRATION]
    return {name: score for name, score in scores.items() if ":" in item.task or name in shown}, rows


def _open(item: BenchmarkSum) -> Any:
    # Imported where it is used: lm-eval takes seconds to load, and measurements of kept answers do without it.
    from kdray.score.benchmark import Setting, open_benchmark

    return open_benchmark(Setting(**item.setting))


def _loaded(step: Step[MeasureInputs]) -> str:
    """What the steps of one group share, so that it is loaded once: a model of the grid or a metric, or else the
    answers.
    """
    if isinstance(step.inputs, AnswersInputs):
        models = step.inputs.models.by_parameter.values() if step.inputs.models else ()
        return next((model.key.id for model in models), step.inputs.outputs.key.id)
    return step.inputs.model.key.id


def _is_heldout(step: Step) -> bool:
    return isinstance(declared(declare.Task, step.params["task"]["name"]), declare.HeldoutTask)


def _items(
    step: Step[MeasureInputs], attempt: Attempt, work: Work, benchmarks: Mapping[str, tuple[dict[str, Any], int]]
) -> list[Measurement]:
    """A step's items: one, or where it has many requests one for each part that no attempt left, and one that sums
    up.
    """
    key, target, inputs, params = step.key.id, attempt.path, step.inputs, step.params
    if isinstance(inputs, AnswersInputs):
        return [_of_answers(step, inputs, attempt, work)]
    gpus, model = work.gpus_for(inputs.model, params["dtype"]), work.folder(inputs.model)
    common: dict[str, Any] = {"key": key, "gpus": gpus, "target": target, "model": model, "dtype": params["dtype"]}
    if isinstance(inputs, RateInputs):
        return [Rating(**common, outputs=work.folder(inputs.outputs), lens=work.folder(inputs.lens))]
    task = params["task"]
    if _is_heldout(step):
        assert inputs.data is not None
        labels = work.soft_labels(inputs, params)
        return [HeldoutRows(**common, data=work.folder(inputs.data), soft_labels=labels, limit=task["params"]["limit"])]
    setting, count = benchmarks[key]
    common |= {"task": task["name"], "setting": setting}
    present = carry_over(attempt)
    return [*(BenchmarkPart(**common, index=i) for i in range(count) if i not in present), BenchmarkSum(**common)]


def _of_answers(step: Step, inputs: AnswersInputs, attempt: Attempt, work: Work) -> AnswerMetrics:
    """What the metrics of kept answers need; the parameters that change no number come from the grid as it is now."""
    now = {use.name: use.params for use in work.plan.grid.score.metrics}
    models = {name: work.folder(made) for name, made in inputs.models.by_parameter.items()} if inputs.models else {}
    metrics = []
    for metric in step.params["metrics"]:
        name = metric["name"]
        runtime = declared(declare.Metric, name).runtime
        params = metric["params"] | {key: value for key, value in now.get(name, {}).items() if key in runtime}
        metrics.append(MetricUse(name, params, models))
    return AnswerMetrics(
        key=step.key.id,
        target=attempt.path,
        outputs=work.folder(inputs.outputs),
        answerer=work.folder(inputs.outputs.inputs.model),
        samples=tuple(map(work.folder, inputs.samples)),
        metrics=tuple(metrics),
        count_empty=not any(declared(declare.Metric, metric["name"]).slow for metric in step.params["metrics"]),
        cache=work.store.root / "cache",
    )
