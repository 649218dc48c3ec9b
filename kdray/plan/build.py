"""The plan of a grid: what its models, data, teachers and points need, and how they hang together."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from kdray.plan.identity import ONLINE, payload
from kdray.plan.scores import score_steps
from kdray.plan.steps import Plan, PointPlan, Step, make_step, slug_of
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.errors import InputError
from kdray.spec.grid import Grid, Labels, Model, Train, Tune
from kdray.spec.points import Point, expand
from kdray.spec.refs import parse_reference
from kdray.store import Outer

CUT_VERSION = 2  # of how layers are cut: of models that are only fetched, nothing has changed


def make_plan(grid: Grid, outer: Outer) -> Plan:
    """The plan of `grid`, its outer references identified as far as that is possible offline.

    Raises:
        InputError: a local file that the grid names does not exist, or two points are one training.
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
            return make_step("augment", f"{prepare.slug}-teacher", payload(grid.augment), inputs)
        return make_step("augment", f"{prepare.slug}-both", {}, {"data": prepare, "answers": rows("teacher", teacher)})

    @functools.cache
    def soft_labels(labels: Labels, teacher: str) -> Mapping[str, Step]:
        return _soft_labels(grid, models[teacher], rows(labels, teacher))

    def point_plan(point: Point) -> PointPlan:
        teacher = point.teacher or "teacher"
        members = grid.ensembles.get(teacher, [teacher]) if point.alpha > 0 else []
        return _point(point, grid, models["student"], rows(point.labels, teacher), [soft_labels(point.labels, name) for name in members])

    first = next(iter(grid.all_teachers), None)
    heldout_labels = soft_labels("gold", first) if first else {}
    points = [point_plan(point) for point in expand(grid)]
    _refuse_same(points)
    plan = Plan(grid, models, prepare, heldout_labels, points, [])
    plan.scores.extend(score_steps(plan, outer))
    return plan


def make_scoring_plan(grid: Grid, models: Mapping[str, str], outer: Outer) -> Plan:
    """The plan that scores models, references by name, as `grid.score` says. Of the grid it needs what `only_scoring` gives.

    Raises:
        InputError: a local file does not exist, or a reference is malformed.
    """
    steps = {name: _model(Model(model=ref), "--model", outer) for name, ref in models.items()}
    plan = Plan(grid, steps, None, {}, [], [])
    plan.scores.extend(score_steps(plan, outer))
    return plan


def position_slug(train: Train, position: float) -> str:
    """A checkpoint's short name: `e1` for one epoch, `s200` for 200 steps."""
    return f"{train.unit[0]}{position:g}"


def _refuse_same(points: Sequence[PointPlan]) -> None:
    """Two points with one id would be trained twice, and the first to finish would remove the other's work."""
    seen: dict[str, str] = {}
    for point in points:
        if point.train.id in seen:
            allowed = "name every model once, and ensembles with other proportions"
            raise InputError("teachers", f"the points {seen[point.train.id]} and {point.train.slug} are the same training", allowed)
        if point.train.id:
            seen[point.train.id] = point.train.slug


def _model(model: Model, field: str, outer: Outer) -> Step:
    ref = parse_reference(model.model, field)
    identity = outer.identify(ref, field)
    slug = slug_of(PurePosixPath(ref.path or ref.name).name.removesuffix(".gguf"))
    base = make_step("model", slug, identity and {"source": identity, "gguf": ref.is_gguf}, {}, ref)
    if not model.drop_layers:
        return base
    first, end = model.drop_layers
    params = payload(model, "drop_layers") | {"rule": CUT_VERSION}
    return make_step("model", f"{slug}-without{first}to{end - 1}", params, {"model": base})


def _prepare(grid: Grid, tokenizer: Step, outer: Outer) -> Step:
    ref = parse_reference(grid.data.source, "data.source")
    identity = outer.identify(ref, "data.source")
    params = identity and payload(grid.data, source=identity)
    slug = slug_of(PurePosixPath(ref.path or ref.name).name.partition(".")[0])
    return make_step("prepare", slug, params, {"tokenizer": tokenizer}, ref)


def _teach(tune: Tune, teacher: Step, prepare: Step) -> Step:
    return make_step("teach", f"{teacher.slug}-{tune.method}", payload(tune), {"student": teacher, "data": prepare})


def _soft_labels(grid: Grid, teacher: Step, data: Step) -> dict[str, Step]:
    """What points that train on `data` get one teacher's soft labels from, as their input."""
    if not _is_kept(grid):
        return {"teacher": teacher}
    return {"soft_labels": _soften(grid, teacher, data)}


def _is_kept(grid: Grid) -> bool:
    """Whether soft labels lie on disk; otherwise the teacher is asked at every step."""
    return bool(declared(declare.Form, grid.soft_labels.form.name).kept)


def _soften(grid: Grid, teacher: Step, data: Step) -> Step:
    form = grid.soft_labels.form.name
    params = payload(grid.soft_labels)
    if declared(declare.Form, form).tempered:
        params["temperature"] = grid.objective.temperature
    slug = form if data.kind == "prepare" else f"{form}-{data.slug}"
    return make_step("soften", slug, params, {"teacher": teacher, "data": data})


def _point(point: Point, grid: Grid, student: Step, data: Step, labels: Sequence[Mapping[str, Step]]) -> PointPlan:
    """`labels`: inputs with soft labels, of one teacher or of the members of an ensemble."""
    params = payload(grid.train) | {"lr": point.lr, "batch": point.batch, "alpha": point.alpha, "seed": point.seed}
    inputs = {"student": student, "data": data}
    if point.alpha > 0:
        params["objective"] = payload(grid.objective)
        if weights := grid.ensembles.get(point.teacher):
            params["weights"] = [weight / sum(weights.values()) for weight in weights.values()]
            inputs |= {f"{name}.{i}": step for i, member in enumerate(labels) for name, step in member.items()}
        else:
            inputs |= labels[0]
        if not _is_kept(grid):
            params["soft_labels"] = payload(grid.soft_labels, *ONLINE)
    train = make_step("train", point.slug, params, inputs)
    exports = {
        position: make_step(
            "student", f"{point.slug}-{position_slug(grid.train, position)}", {"at": position}, {"point": train}, stage="train"
        )
        for position in grid.train.kept
    }
    return PointPlan(point, train, exports)
