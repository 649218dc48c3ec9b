"""measure: scores of a model on a task, from kept answers or from its log-likelihoods."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape

from kdray.artifacts.parts import carry_over
from kdray.artifacts.scores import DETAILS, read_details, score_files
from kdray.orchestration.measurer import (
    AnswerMetrics,
    BenchmarkPart,
    BenchmarkSum,
    HeldoutRows,
    Measurement,
    MetricUse,
    Rating,
)
from kdray.orchestration.work import Work
from kdray.plan import Step, reading
from kdray.plan.inputs import AnswersInputs, LikelihoodInputs, MeasureInputs, RateInputs
from kdray.score.choices import TASK, lay_down_examples, lay_down_task, own_name, tokenizer_identity
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.errors import InputError
from kdray.store import Attempt

DECLARED = declare.Stage(version=2)


def measure(steps: Sequence[Step[MeasureInputs]], work: Work) -> Measuring:
    """What the schedule does of the missing ones of `steps`."""
    return Measuring(steps, work)


class Measuring:
    """Benchmarks in parts, everything else at once, grouped by model."""

    def __init__(self, steps: Sequence[Step[MeasureInputs]], work: Work) -> None:
        self.steps, self.work = steps, work
        self.tokenizers: dict[str, str] = {}  # a folder for each tokenizer: models with equal ones share benchmarks
        self.counts: dict[str, int | InputError] = {}  # of the parts of each benchmark

    def look(self) -> None:
        """Build the requests of every benchmark, before anything is trained.

        Raises:
            InputError: the data of one cannot be used.
        """
        likelihoods = reading(self.steps, LikelihoodInputs)
        steps = self.work.once_an_origin(step for step in likelihoods if not _is_heldout(step))
        settings = {json.dumps(setting): setting for setting in map(self._setting, steps)}
        self._count(settings)
        for key in settings:
            if isinstance(count := self.counts[key], InputError):
                raise count

    def begin(self, claimed: Sequence[tuple[Step[MeasureInputs], Attempt]]) -> list[list[Measurement]]:
        likelihoods = reading([step for step, _ in claimed], LikelihoodInputs)
        benchmarks = self._benchmarks([step for step in likelihoods if not _is_heldout(step)])
        groups: dict[str, list[Measurement]] = defaultdict(list)
        for step, attempt in claimed:
            if step.key.id not in self.work.failed:
                items = _items(step, attempt, self.work, benchmarks)
                groups[_loaded(step)] += items
        return list(groups.values())

    def finish(self, step: Step[MeasureInputs], attempt: Attempt) -> None:
        facts = read_details(attempt.path)
        told = {name: facts[name] for name in ("failed", "unlabelled", "truncated", "counts") if name in facts}
        self.work.seal(step, attempt, score_files(attempt.path), **told)
        _tell(step, facts, self.work)

    def _benchmarks(self, steps: Sequence[Step[LikelihoodInputs]]) -> dict[str, tuple[dict[str, Any], int]]:
        """By step: its benchmark, and in how many parts its requests are answered. Each benchmark is built once.

        A step whose benchmark cannot be built fails; the others go on.
        """
        settings: dict[str, dict[str, Any]] = {}
        for step in steps:
            try:
                settings[step.key.id] = self._setting(step)
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

    def _setting(self, step: Step[LikelihoodInputs]) -> dict[str, Any]:
        """The fields of a benchmark's `Setting`."""
        task, model = step.params["task"], self.work.origin(step.inputs.model)
        folder, name = self.work.scratch / "tasks" / task["name"].replace(":", "-"), task["name"].partition(":")[2]
        if step.source is not None:
            if not (folder / TASK).is_file():
                lay_down_task(task["name"], task["params"], step.source, self.work.outer, folder, task["source"])
            name = own_name(task["name"])
        examples = folder / "examples" if "shots_source" in step.files else None
        if examples and not examples.is_dir():
            ref, identity = step.files["shots_source"], task["shots_source"]
            lay_down_examples(task["name"], task["params"], ref, self.work.outer, folder, identity)
        tokenizer = self.tokenizers.setdefault(tokenizer_identity(model), str(model))
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
    if told := [f"{count} {name.replace('_', ' ')}" for name, count in facts.get("counts", {}).items() if count]:
        work.progress.say(f"{step.slug}: {', '.join(told)}")


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


def _loaded(step: Step[MeasureInputs]) -> str:
    """What the steps of one group share, so that it is loaded once: a model of the grid or a metric, or else the
    answers.
    """
    if isinstance(step.inputs, AnswersInputs) and not step.inputs.model:
        models = step.inputs.models.by_parameter.values() if step.inputs.models else ()
        return next((model.key.id for model in models), step.inputs.outputs.key.id)
    assert step.inputs.model
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
        common["gpus"] = max(gpus, work.resources.units_for(1, None))  # what a lens reads has no price
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
    answerer = inputs.outputs.inputs.model
    slow = any(declared(declare.Metric, metric["name"]).slow for metric in step.params["metrics"])
    now = {use.name: use.params for use in work.plan.grid.score.metrics}
    models = {name: work.folder(made) for name, made in inputs.models.by_parameter.items()} if inputs.models else {}
    metrics = []
    for metric in step.params["metrics"]:
        name = metric["name"]
        runtime = declared(declare.Metric, name).runtime
        params = metric["params"] | {key: value for key, value in now.get(name, {}).items() if key in runtime}
        metrics.append(MetricUse(name, params, models))
    # Without a model of their own they go to the actors that the answerer has: others would take turns with those.
    memory = None if slow else work.scored_in.get(work.plan.role(answerer))
    dtype = step.params["dtype"] if inputs.model else None
    return AnswerMetrics(
        key=step.key.id,
        gpus=work.gpus_for(inputs.model, dtype) if inputs.model and dtype else work.resources.units_for(1, memory),
        target=attempt.path,
        outputs=work.folder(inputs.outputs),
        answerer=work.folder(answerer),
        dtype=dtype,
        samples=tuple(map(work.folder, inputs.samples)),
        metrics=tuple(metrics),
        count_empty=not slow,
        cache=work.store.root / "cache",
    )
