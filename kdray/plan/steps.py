"""The steps a grid needs, deduplicated, each with the id of the artifact it makes. No torch, no ray, no network.

    model    fetched, converted from GGUF, or cut          student   an exported checkpoint of a point
    prepare  instruction data as tokens                    generate  a model's answers on a task
    teach    the teacher, fine-tuned                       measure   scores of a model on a task
    augment  the same data with the teacher's answers   lens      a Lookback Lens of the untrained student
    soften   the teacher's soft labels
    train    one point

A step whose outer references are not resolved yet has no id, and neither have the steps that need it.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Literal

from kdray.spec.components import bind, component
from kdray.spec.decodings import decoding_label, references
from kdray.spec.grid import Grid, Labels, Model, Train, Tune, Use
from kdray.spec.points import Point, expand
from kdray.spec.refs import Reference, parse_reference
from kdray.store import Key, Outer, Store, fingerprint

State = Literal["done", "running", "missing", "unresolved"]
Subject = Point | str  # or a reference model: the student, or a teacher by its name


@dataclass(frozen=True)
class Step:
    """A piece of work that makes one artifact. `payload` is what the id is made of; None while unresolved."""

    kind: str
    slug: str
    payload: dict[str, Any] | None
    inputs: Mapping[str, Step] = field(default_factory=dict)
    source: Reference | None = None
    files: Mapping[str, Reference] = field(default_factory=dict)  # of its decoding, by parameter; their content is in the payload

    @cached_property
    def id(self) -> str | None:
        return None if self.payload is None else fingerprint(self.payload)

    @property
    def key(self) -> Key:
        assert self.id is not None, f"{self.kind} {self.slug} is unresolved"
        return Key(self.kind, self.slug, self.id)

    @property
    def params(self) -> dict[str, Any]:
        assert self.payload is not None
        return self.payload["params"]

    def state(self, store: Store) -> State:
        if self.payload is None:
            return "unresolved"
        if store.get(self.key):
            return "done"
        return "running" if store.is_running(self.key) else "missing"


@dataclass(frozen=True)
class ScoreStep:
    """One task on one model: the point (or reference model) it belongs to, the checkpoint, and its steps."""

    subject: Subject
    position: float | None  # the checkpoint, in the unit of the training length; None for a reference model
    task: Use
    measure: Step
    generate: Step | None
    decoding: str = ""  # the label of how the answers are made, if any are


@dataclass(frozen=True)
class PointPlan:
    """A point, its training step and its exported checkpoints by position."""

    point: Point
    train: Step
    exports: Mapping[float, Step]


@dataclass(frozen=True)
class Plan:
    """Everything a grid needs.

    `models` are the student and, by name, the teachers as they label; `heldout_labels` the inputs with the soft labels
    that all points' held-out scores are measured on: of the first teacher, at the original responses.
    """

    grid: Grid
    models: Mapping[str, Step]
    prepare: Step
    heldout_labels: Mapping[str, Step]
    points: list[PointPlan]
    scores: list[ScoreStep]

    def steps(self) -> Iterator[Step]:
        """Every step once, inputs before the steps that need them."""
        seen: set[int | str] = set()

        def walk(step: Step) -> Iterator[Step]:
            mark = step.id or id(step)
            if mark in seen:
                return
            seen.add(mark)
            for needed in step.inputs.values():
                yield from walk(needed)
            yield step

        inputs = [needed for point in self.points for needed in point.train.inputs.values()]
        for root in [*self.models.values(), self.prepare, *inputs]:
            yield from walk(root)
        for point in self.points:
            yield from walk(point.train)
            for export in point.exports.values():
                yield from walk(export)
        for score in self.scores:
            yield from walk(score.measure)


def make_plan(grid: Grid, outer: Outer) -> Plan:
    """The plan of `grid`, its outer references identified as far as that is possible offline.

    Raises:
        InputError: a local file that the grid names does not exist.
    """
    models = {role: _model(model, f"{field}.model", outer) for role, (field, model) in grid.models().items()}
    student = models["student"]
    prepare = _prepare(grid, student.inputs.get("model", student), outer)
    for name, teacher in grid.all_teachers.items():
        if teacher.tune:
            models[name] = _teach(teacher.tune, models[name], prepare)

    @functools.cache
    def rows(labels: Labels, teacher: str) -> Step:
        if labels == "gold":
            return prepare
        if labels == "teacher":
            inputs = {"teacher": models[teacher], "data": prepare}
            return _step("augment", f"{prepare.slug}-teacher", grid.augment.model_dump(), inputs)
        return _step("augment", f"{prepare.slug}-both", {}, {"data": prepare, "answers": rows("teacher", teacher)})

    @functools.cache
    def soft_labels(labels: Labels, teacher: str) -> Mapping[str, Step]:
        return _soft_labels(grid, models[teacher], rows(labels, teacher))

    def point_plan(point: Point) -> PointPlan:
        teacher = point.teacher or "teacher"
        members = grid.ensembles.get(teacher, [teacher]) if point.alpha > 0 else []
        return _point(point, grid, models["student"], rows(point.labels, teacher), [soft_labels(point.labels, name) for name in members])

    first = next(iter(grid.all_teachers), None)
    heldout_labels = soft_labels("gold", first) if first else {}
    plan = Plan(grid, models, prepare, heldout_labels, [point_plan(point) for point in expand(grid)], [])
    plan.scores.extend(_scores(plan, outer))
    return plan


def position_slug(train: Train, position: float) -> str:
    """A checkpoint's short name: `e1` for one epoch, `s200` for 200 steps."""
    return f"{train.unit[0]}{position:g}"


def _step(
    kind: str, slug: str, params: dict[str, Any] | None, inputs: Mapping[str, Step], source: Reference | None = None, stage: str = ""
) -> Step:
    """A step, unresolved if its params or any of its inputs are."""
    ids = {name: step.id for name, step in inputs.items()}
    payload = None
    if params is not None and None not in ids.values():
        version = component("stage", stage or kind, "stage").version
        payload = {"step": kind, "version": version, "params": params, "inputs": ids}
    return Step(kind, slug, payload, inputs, source)


def _use(use: Use, kind: str) -> dict[str, Any]:
    return {"name": use.name, "version": component(kind, use.name, kind).version, "params": use.params}


def _model(model: Model, field: str, outer: Outer) -> Step:
    ref = parse_reference(model.model, field)
    identity = outer.identify(ref, field)
    slug = _slug(PurePosixPath(ref.path or ref.name).name.removesuffix(".gguf"))
    base = _step("model", slug, identity and {"source": identity, "gguf": ref.is_gguf}, {}, ref)
    if not model.drop_layers:
        return base
    first, end = model.drop_layers
    return _step("model", f"{slug}-without{first}to{end - 1}", {"drop_layers": [first, end]}, {"model": base})


def _prepare(grid: Grid, tokenizer: Step, outer: Outer) -> Step:
    ref = parse_reference(grid.data.source, "data.source")
    identity = outer.identify(ref, "data.source")
    fields = {name: getattr(grid.data, name) for name in ("max_prompt", "max_length", "heldout", "test", "limit")}
    components = {"recipe": _use(grid.data.recipe, "recipe"), "template": _use(grid.data.template, "template")}
    slug = _slug(PurePosixPath(ref.path or ref.name).name.partition(".")[0])
    return _step("prepare", slug, identity and {"source": identity, **fields, **components}, {"tokenizer": tokenizer}, ref)


def _optimiser(section: Train | Tune) -> dict[str, Any]:
    """What of a training section changes the weights."""
    fields = section.model_dump(exclude={"keep", "schedule", "epochs", "steps"})
    length = {"unit": section.unit, "length": section.total}
    if section.method == "full":
        del fields["rank"]
    return fields | length | {"schedule": _use(section.schedule, "schedule")}


def _teach(tune: Tune, teacher: Step, prepare: Step) -> Step:
    return _step("teach", f"{teacher.slug}-{tune.method}", _optimiser(tune), {"student": teacher, "data": prepare})


def _soft_labels(grid: Grid, teacher: Step, data: Step) -> dict[str, Step]:
    """What points that train on `data` get one teacher's soft labels from, as their input."""
    if grid.soft_labels.form.name == "online":
        return {"teacher": teacher}
    return {"soft_labels": _soften(grid, teacher, data)}


def _soften(grid: Grid, teacher: Step, data: Step) -> Step:
    form = grid.soft_labels.form.name
    params = _labels(grid) | {"batch": grid.soft_labels.batch}
    if component("soft labels", form, "soft_labels.form").constants.get("TEMPERED"):
        params["temperature"] = grid.objective.temperature
    slug = form if data.kind == "prepare" else f"{form}-{data.slug}"
    return _step("soften", slug, params, {"teacher": teacher, "data": data})


def _labels(grid: Grid) -> dict[str, Any]:
    """What of the section `soft_labels` changes the labels themselves."""
    return {"form": _use(grid.soft_labels.form, "soft labels"), "compute": grid.soft_labels.compute}


def _point(point: Point, grid: Grid, student: Step, data: Step, labels: Sequence[Mapping[str, Step]]) -> PointPlan:
    """`labels`: inputs with soft labels, of one teacher or of the members of an ensemble."""
    # The kept checkpoints are content: held-out losses are taken there, and an export can only be had by training.
    params = _optimiser(grid.train) | {"keep": grid.train.kept}
    params |= {"lr": point.lr, "batch": point.batch, "alpha": point.alpha, "seed": point.seed}
    inputs = {"student": student, "data": data}
    if point.alpha > 0:
        objective = grid.objective
        params["objective"] = objective.model_dump(exclude={"loss"}) | {"loss": _use(objective.loss, "loss")}
        if weights := grid.ensembles.get(point.teacher):
            params["weights"] = [weight / sum(weights.values()) for weight in weights.values()]
            inputs |= {f"{name}.{i}": step for i, member in enumerate(labels) for name, step in member.items()}
        else:
            inputs |= labels[0]
        if grid.soft_labels.form.name == "online":
            params["soft_labels"] = _labels(grid)
    train = _step("train", point.slug, params, inputs)
    exports = {
        position: _step("student", f"{point.slug}-{position_slug(grid.train, position)}", {"at": position}, {"point": train}, stage="train")
        for position in grid.train.kept
    }
    return PointPlan(point, train, exports)


def _scores(plan: Plan, outer: Outer) -> Iterator[ScoreStep]:
    grid = plan.grid
    wanted = [role for role in plan.models if ("student" if role == "student" else "teacher") in grid.score.references]
    subjects: list[tuple[Subject, float | None, Step]] = [(role, None, plan.models[role]) for role in wanted]
    for point in plan.points:
        exports = list(point.exports.items())
        subjects += [(point.point, at, step) for at, step in (exports if grid.score.checkpoints == "all" else exports[-1:])]
    lens = _lens(grid, plan.models["student"], outer)
    for index, task in enumerate(grid.score.tasks):
        source = task.params.get("source")
        ref = parse_reference(source, f"score.tasks.{index}.source") if source is not None else None
        identity = outer.identify(ref, f"score.tasks.{index}.source") if ref else {}
        for subject, position, model in subjects:
            scores = list(_score(plan, task, ref, identity, subject, position, model, outer))
            yield from scores
            if (
                lens
                and (subject == "student" or isinstance(subject, Point))
                and component("task", task.name, "score.tasks").constants.get("FACTUAL_RATE")
            ):
                yield from (_factual_rate(score, model, lens) for score in scores)


def _score(
    plan: Plan,
    task: Use,
    ref: Reference | None,
    identity: Mapping[str, Any] | None,
    subject: Subject,
    position: float | None,
    model: Step,
    outer: Outer,
) -> Iterator[ScoreStep]:
    """The steps of one task on one model: `generate` once per decoding and then `measure`, or `measure` alone."""
    declared = component("task", task.name, "score.tasks").constants
    scoring = plan.grid.score
    params = None
    if identity is not None:
        settings = {key: value for key, value in task.params.items() if key != "source"}
        named = _use(task, "task") | {"params": settings, "source": dict(identity)}
        params = {"task": named, "dtype": scoring.dtype, "batch": scoring.batch}
    inputs = {"model": model}
    if declared["KIND"] == "heldout" or declared.get("HELDOUT"):
        inputs["data"] = plan.prepare
    if declared["KIND"] == "heldout":
        inputs |= plan.heldout_labels
        if params is not None and "teacher" in plan.heldout_labels:
            params |= {"soft_labels": _labels(plan.grid)}
    slug = f"{model.slug}-{task.name}"
    if params is not None and declared["KIND"] == "choices":
        params |= {"lm_eval": importlib.metadata.version("lm_eval")}  # whose task files and code do the scoring
    if declared["KIND"] != "generate":
        yield ScoreStep(subject, position, task, _step("measure", slug, params, inputs, ref), None)
        return
    if params is not None and not declared.get("HELDOUT"):  # its prompts are made here, not in the prepared data
        params |= {"template": _use(plan.grid.data.template, "template")}
    metrics = [_use(Use(name=name, params=bind("metric", name, {}, "metric")), "metric") for name in declared["METRICS"]]
    for i, decoding in enumerate(scoring.decoding):
        label = decoding_label(decoding)
        files = references(decoding, f"score.decoding.{i}")
        contents = {name: outer.identify(file, f"score.decoding.{i}.{name}") for name, file in files.items()}
        asked = params and params | {"decoding": _decoding(decoding, contents)}
        generate = dataclasses.replace(_step("generate", f"{slug}-{label}", asked, inputs, ref), files=files)
        measure = _step("measure", f"{slug}-{label}", {"metrics": metrics}, {"outputs": generate})
        yield ScoreStep(subject, position, task, measure, generate, label)


def _lens(grid: Grid, student: Step, outer: Outer) -> Step | None:
    """The lens that the grid asks for: one for all its points, which share the student's shape."""
    section = grid.lens
    if section is None:
        return None
    ref = parse_reference(section.source, "lens.source")
    identity = outer.identify(ref, "lens.source")
    fields = section.model_dump(exclude={"annotations", "source"}) | {"dtype": grid.score.dtype}
    named = {"annotations": _use(Use(name=section.annotations), "annotations"), "template": _use(grid.data.template, "template")}
    slug = f"{student.slug}-{section.annotations}"
    return _step("lens", slug, identity and {"source": identity, **fields, **named}, {"model": student}, ref)


def _factual_rate(score: ScoreStep, model: Step, lens: Step) -> ScoreStep:
    """The factual rate of answers that are scored already: a score of its own, so that a new lens makes nothing else again."""
    assert score.generate is not None
    inputs = {"outputs": score.generate, "model": model, "lens": lens}
    params = {"dtype": lens.payload and lens.params["dtype"]}
    return dataclasses.replace(score, measure=_step("measure", f"{score.measure.slug}-fr", params, inputs))


def _decoding(use: Use, contents: Mapping[str, Any]) -> str | dict[str, Any]:
    """A decoding as it enters ids, files by their content; one that has nothing to set, such as greedy, by its name alone."""
    named = _use(use, "decoding")
    named["params"] = named["params"] | contents
    return named if named["params"] or named["version"] > 1 else use.name


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-") or "unnamed"
