"""The plan of a grid: what its models, data, teachers and points need, and how they hang together."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from kdray.plan.cited import cited_answers
from kdray.plan.identity import ONLINE, payload
from kdray.plan.inputs import (
    AnswerInputs,
    CurateInputs,
    CutInputs,
    ExportInputs,
    JoinInputs,
    PrepareInputs,
    RetokeniseInputs,
    Softened,
    SoftenInputs,
    TrainInputs,
)
from kdray.plan.scores import model_step, score_steps
from kdray.plan.steps import Plan, PointPlan, Step, make_step, slug_of
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.errors import InputError
from kdray.spec.grid import Grid
from kdray.spec.points import Point, expand
from kdray.spec.refs import parse_reference
from kdray.spec.sections.base import Labels
from kdray.spec.sections.data import CurateSection
from kdray.spec.sections.models import Model
from kdray.spec.sections.training import AlignSection, Train, Tune
from kdray.store import Outer

CUT_VERSION = 2  # of how layers are cut: of models that are only fetched, nothing has changed


def make_plan(grid: Grid, outer: Outer) -> Plan:
    """The plan of `grid`, its outer references identified as far as that is possible offline.

    Raises:
        InputError: a local file that the grid names does not exist, or two points are one training.
    """
    models = {role: _model(model, f"{field}.model", outer) for role, (field, model) in grid.models().items()}
    student = models["student"]
    whole = student.inputs.model if isinstance(student.inputs, CutInputs) else student
    prepare = _prepare(grid, whole, outer)
    curate = _curate(grid.data.curate, prepare, outer) if grid.data.curate else None
    untuned = dict(models)

    @functools.cache
    def across(labels: Labels, teacher: str) -> Step[RetokeniseInputs] | None:
        """What points train on as a teacher with other tokens reads it."""
        return _retokenise(grid, untuned[teacher], whole, rows(labels, teacher)) if grid.soft_labels.align else None

    @functools.cache
    def answers(teacher: str) -> Step[AnswerInputs]:
        inputs = AnswerInputs(teacher=models[teacher], data=prepare, across=across("gold", teacher))
        return make_step("augment", f"{prepare.slug}-teacher", payload(grid.augment), inputs)

    @functools.cache
    def rows(labels: Labels, teacher: str) -> Step:
        if labels in ("gold", "student"):
            return prepare
        if labels == "teacher":
            return answers(teacher)
        return make_step("augment", f"{prepare.slug}-both", {}, JoinInputs(data=prepare, answers=answers(teacher)))

    for name, teacher in grid.all_teachers.items():
        if teacher.tune:
            models[name] = _teach(teacher.tune, models[name], across("gold", name) or prepare)

    @functools.cache
    def soft_labels(labels: Labels, teacher: str, temperature: float) -> Softened:
        read = across(labels, teacher)
        return replace(_soft_labels(grid, models[teacher], read or rows(labels, teacher), temperature), across=read)

    def point_plan(point: Point) -> PointPlan:
        teacher = point.teacher or "teacher"
        taught = Softened()
        if point.alpha > 0 and teacher in grid.ensembles:
            taught = _together([soft_labels(point.labels, name, point.temperature) for name in grid.ensembles[teacher]])
        elif point.alpha > 0:
            taught = soft_labels(point.labels, teacher, point.temperature)
        among = curate if point.rows != "all" else None
        return _point(point, grid, models["student"], rows(point.labels, teacher), taught, among)

    first = next(iter(grid.all_teachers), None)
    heldout_labels = Softened()
    if first and not grid.soft_labels.align:  # of other tokens there is no divergence to tell
        heldout_labels = soft_labels("gold", first, grid.objective.temperature)
    points = [point_plan(point) for point in expand(grid) if not point.aligned]
    read = {name: step for name in grid.all_teachers if (step := across("gold", name))}
    plan = Plan(grid, models, prepare, heldout_labels, points, [], read)
    if grid.align:
        plan.points.extend(_aligned(plan, grid.align, prepare, outer))
    _refuse_same(points)
    plan.scores.extend(score_steps(plan, outer))
    return plan


def make_scoring_plan(grid: Grid, models: Mapping[str, str], outer: Outer) -> Plan:
    """The plan that scores models, references by name, as `grid.score` says. Of the grid it needs what `only_scoring`
    gives.

    Raises:
        InputError: a local file does not exist, or a reference is malformed.
    """
    steps = {name: _model(Model(model=ref), "--model", outer) for name, ref in models.items()}
    plan = Plan(grid, steps, None, Softened(), [], [])
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
            raise InputError(
                "teachers", f"the points {seen[point.train.id]} and {point.train.slug} are the same training", allowed
            )
        if point.train.id:
            seen[point.train.id] = point.train.slug


def _model(model: Model, field: str, outer: Outer) -> Step:
    base = model_step(model.model, field, outer)
    if not model.drop_layers:
        return base
    first, end = model.drop_layers
    params = payload(model, "drop_layers") | {"rule": CUT_VERSION}
    return make_step("model", f"{base.slug}-without{first}to{end - 1}", params, CutInputs(model=base))


def _prepare(grid: Grid, tokenizer: Step, outer: Outer) -> Step[PrepareInputs]:
    ref = parse_reference(grid.data.source, "data.source")
    identity = outer.identify(ref, "data.source")
    params = identity and payload(grid.data, source=identity)
    slug = slug_of(PurePosixPath(ref.path or ref.name).name.partition(".")[0])
    return make_step("prepare", slug, params, PrepareInputs(tokenizer=tokenizer), ref)


def _curate(section: CurateSection, data: Step[PrepareInputs], outer: Outer) -> Step[CurateInputs]:
    if section.metadata is None:
        return make_step("curate", data.slug, payload(section, metadata=None), CurateInputs(data=data))
    ref = parse_reference(section.metadata, "data.curate.metadata")
    identity = outer.identify(ref, "data.curate.metadata")
    params = identity and payload(section, metadata=identity)
    return make_step("curate", data.slug, params, CurateInputs(data=data), ref)


def _retokenise(grid: Grid, teacher: Step, student: Step, data: Step) -> Step[RetokeniseInputs]:
    inputs = RetokeniseInputs(tokenizer=teacher, student=student, data=data)
    return make_step("retokenise", f"{data.slug}-{teacher.slug}", payload(grid.data, "template"), inputs)


def _teach(tune: Tune, teacher: Step, data: Step) -> Step[TrainInputs]:
    return make_step("teach", f"{teacher.slug}-{tune.method}", payload(tune), TrainInputs(student=teacher, data=data))


def _soft_labels(grid: Grid, teacher: Step, data: Step, temperature: float) -> Softened:
    """What points that train on `data` get one teacher's soft labels from."""
    return (
        Softened(soft_labels=_soften(grid, teacher, data, temperature)) if _is_kept(grid) else Softened(teacher=teacher)
    )


def _together(members: Sequence[Softened]) -> Softened:
    """Those of an ensemble."""
    kept = tuple(step for member in members if isinstance(step := member.soft_labels, Step))
    return (
        Softened(soft_labels=kept)
        if kept
        else Softened(teacher=tuple(step for member in members for step in member.sources))
    )


def _is_kept(grid: Grid) -> bool:
    """Whether soft labels lie on disk; otherwise the teacher is asked at every step."""
    return bool(declared(declare.Form, grid.soft_labels.form.name).kept)


def _soften(grid: Grid, teacher: Step, data: Step, temperature: float) -> Step[SoftenInputs]:
    form = grid.soft_labels.form.name
    params = payload(grid.soft_labels)
    if declared(declare.Form, form).tempered:
        params["temperature"] = temperature
    slug = form if data.kind == "prepare" else f"{form}-{data.slug}"
    return make_step("soften", slug, params, SoftenInputs(teacher=teacher, data=data))


def _point(
    point: Point, grid: Grid, student: Step, data: Step, taught: Softened, among: Step[CurateInputs] | None
) -> PointPlan:
    params = payload(grid.train) | {"lr": point.lr, "batch": point.batch, "alpha": point.alpha, "seed": point.seed}
    params |= {"smoothing": point.smoothing} if point.smoothing else {}
    params |= {"rows": point.rows} if among else {}
    if export := payload(grid.train.export):
        params["export"] = export
    if point.alpha > 0:
        params["objective"] = payload(grid.objective) | {"temperature": point.temperature}
        if weights := grid.ensembles.get(point.teacher):
            params["weights"] = [weight / sum(weights.values()) for weight in weights.values()]
        if not _is_kept(grid):
            params["soft_labels"] = payload(grid.soft_labels, *ONLINE)
        if grid.soft_labels.align:
            params["align"] = grid.soft_labels.align
    if point.samples:
        params["on_policy"] = point.on_policy
        params["sampling"] = payload(grid.objective.sampling) | {"max_new_tokens": grid.max_sampled}
    inputs = TrainInputs(
        student=student,
        data=data,
        soft_labels=taught.soft_labels,
        teacher=taught.teacher,
        across=taught.across,
        among=among,
    )
    train = make_step("train", point.slug, params, inputs)
    return PointPlan(point, train, {position: _export(grid.train, train, position) for position in grid.train.kept})


def _export(section: Train, train: Step[TrainInputs], position: float) -> Step[ExportInputs]:
    slug = f"{train.slug}-{position_slug(section, position)}"
    return make_step("student", slug, {"at": position}, ExportInputs(point=train), stage="train")


def _aligned(plan: Plan, section: AlignSection, data: Step[PrepareInputs], outer: Outer) -> list[PointPlan]:
    """The points that learn from their own citations, each from the end of its plain one; their only checkpoint is
    where that one's last is.
    """
    grid, plain = plan.grid, {each.point: each for each in plan.points}
    own = payload(section)
    length = {"unit": "steps", "length": float(own.pop("steps"))}
    simpo = {name: own.pop(name) for name in ("beta", "gamma")}
    params = payload(grid.train) | length | own | {"alpha": 0.0, "packing": False, "simpo": simpo}
    del params["keep"]
    if export := payload(grid.train.export):
        params["export"] = export
    found = []
    for point in expand(grid):
        if point.aligned:
            student = plain[replace(point, aligned=False)].exports[grid.train.total]
            pairs = cited_answers(plan, student, section, outer)
            inputs = TrainInputs(student=student, data=data, pairs=pairs)
            train = make_step("train", point.slug, params | {"seed": point.seed}, inputs)
            found.append(PointPlan(point, train, {grid.train.total: _export(grid.train, train, grid.train.total)}))
    return found
