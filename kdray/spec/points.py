"""A grid's points: every combination of its axes, plus `include`, minus `exclude`; and which of them train first."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from kdray.spec.errors import InputError, did_you_mean
from kdray.spec.grid import Grid
from kdray.spec.sections.base import Labels, RowsOf
from kdray.spec.sections.points import PointSpec, SomePoints

LABELS: tuple[Labels, ...] = get_args(Labels)
ROWS: tuple[RowsOf, ...] = get_args(RowsOf)


@dataclass(frozen=True)
class Point:
    """One cell of the grid.

    `alpha` = 0 is plain supervised fine-tuning (SFT), on the teacher's answers also called sequence-level KD (SeqKD).
    `teacher` is empty where the point has none, or the grid no choice of them. `temperature` is that of the soft term,
    1 where there is none; `on_policy` the share of steps on responses that the student samples, 0 but for the labels
    `student`. An `aligned` point trains on from the end of the one that is like it but for that.
    """

    alpha: float
    lr: float
    batch: int
    seed: int
    labels: Labels = "gold"
    teacher: str = ""
    smoothing: float = 0.0
    temperature: float = 1.0
    on_policy: float = 0.0
    rows: RowsOf = "all"
    aligned: bool = False

    @property
    def needs_teacher(self) -> bool:
        return self.alpha > 0 or self.labels != "gold"

    @property
    def learns_answers(self) -> bool:
        """Whether the teacher's answers are among its responses."""
        return self.labels in ("teacher", "both")

    @property
    def samples(self) -> bool:
        """Whether the student's own responses are, whatever the share of their steps."""
        return self.labels == "student"

    @property
    def slug(self) -> str:
        parts = [
            f"lr{self.lr:g}-b{self.batch}-a{self.alpha:g}-s{self.seed}",
            "" if self.labels == "gold" else self.labels,
            self.teacher,
        ]
        parts += [f"ls{self.smoothing:g}"] if self.smoothing else []
        parts += [f"t{self.temperature:g}"] if self.temperature != 1 else []
        parts += [f"op{self.on_policy:g}"] if self.samples and self.on_policy != 1 else []
        parts += [self.rows] if self.rows != "all" else []
        parts += ["aligned"] if self.aligned else []
        return "-".join(filter(None, parts))


def expand(grid: Grid) -> list[Point]:
    """The points, those that are aligned last, in the order of rows, labels (gold, teacher, both, student), teacher,
    alpha, smoothing, temperature, share of on-policy steps, lr, batch, seed.

    Raises:
        InputError: a point occurs twice, an excluded point is not in the grid, a teacher is unknown, or no point is
            left.
    """
    axes, teachers = grid.axes, _teachers(grid)
    points = [
        Point(alpha, lr, batch, seed, labels, smoothing=smoothing, rows=rows, aligned=aligned)
        for lr, batch, alpha, seed, labels, smoothing, rows, aligned in itertools.product(
            axes.lr, axes.batch, axes.alpha, axes.seed, axes.labels, axes.smoothing, axes.rows, axes.aligned
        )
    ]
    points = [
        replace(point, teacher=teacher) for point in points for teacher in (teachers if point.needs_teacher else [""])
    ]
    temperatures = axes.temperature or [grid.objective.temperature]
    points = [replace(point, temperature=t) for point in points for t in (temperatures if point.alpha else [1.0])]
    shares = axes.on_policy or [grid.objective.on_policy]
    points = [replace(point, on_policy=share) for point in points for share in (shares if point.samples else [0.0])]
    _refuse_duplicates(points, "axes")
    points += [_by_hand(spec, grid, teachers, f"include.{i}") for i, spec in enumerate(grid.include)]
    _refuse_duplicates(points, "include")
    for i, spec in enumerate(grid.exclude):
        point = _by_hand(spec, grid, teachers, f"exclude.{i}")
        if point not in points:
            raise InputError(
                f"exclude.{i}", f"{point.slug} is not in the grid", "exclude only points of axes or include"
            )
        points.remove(point)
    if not points:
        raise InputError("exclude", "leaves no point", "keep at least one point")
    order = ["", *teachers]

    def place(p: Point) -> tuple[float, ...]:
        return (
            p.aligned,
            ROWS.index(p.rows),
            LABELS.index(p.labels),
            order.index(p.teacher),
            p.alpha,
            p.smoothing,
            p.temperature,
            p.on_policy,
            p.lr,
            p.batch,
            p.seed,
        )

    return sorted(points, key=place)


def rank(point: Point, priority: Sequence[SomePoints]) -> int:
    """Which entry of `runtime.priority` names a point first, and behind the last one where none does."""
    ranks = (i for i, some in enumerate(priority) if all(getattr(point, k) == v for k, v in some.named.items()))
    return next(ranks, len(priority))


def check_priority(priority: Sequence[SomePoints], points: Sequence[Point]) -> None:
    """Whether every entry of `runtime.priority` names a point.

    Raises:
        InputError: one does not; its first field that leaves no point.
    """
    for i, some in enumerate(priority):
        left, said = points, ""
        for name, value in some.named.items():
            values = sorted({getattr(point, name) for point in left})
            left, said = [point for point in left if getattr(point, name) == value], f"{said} {name} {_written(value)}"
            if not left:
                known = ", ".join(map(_written, values))
                raise InputError(f"runtime.priority.{i}.{name}", f"no point has{said}", f"known: {known}")


def _written(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def _teachers(grid: Grid) -> list[str]:
    """What points choose from; one nameless choice where the grid has one teacher, or none."""
    if not grid.teachers:
        if grid.axes.teacher:
            raise InputError(
                "axes.teacher", f"{', '.join(grid.axes.teacher)} without teachers", "name them in a section `teachers`"
            )
        return [""]
    known = [*grid.teachers, *grid.ensembles]
    for name in grid.axes.teacher:
        if name not in known:
            raise InputError("axes.teacher", f"no teacher '{name}'", did_you_mean(name, known))
    return grid.axes.teacher or known


def _by_hand(spec: PointSpec, grid: Grid, teachers: list[str], field: str) -> Point:
    temperature = (spec.temperature or grid.objective.temperature) if spec.alpha else 1.0
    point = Point(**spec.model_dump(exclude={"teacher", "temperature", "on_policy"}), temperature=temperature)
    if point.samples:
        share = grid.objective.on_policy if spec.on_policy is None else spec.on_policy
        point = replace(point, on_policy=share)
    elif spec.on_policy is not None:
        raise InputError(f"{field}.on_policy", f"{spec.on_policy:g} with labels {spec.labels}", "use labels: student")
    if not point.needs_teacher or (teachers == [""] and spec.teacher is None):
        return point
    if spec.teacher not in teachers:
        found = "missing" if spec.teacher is None else f"no teacher '{spec.teacher}' on the axis"
        raise InputError(
            f"{field}.teacher",
            found,
            f"known: {', '.join(teachers)}" if teachers != [""] else "the grid has one teacher",
        )
    return replace(point, teacher=spec.teacher)


def _refuse_duplicates(points: list[Point], field: str) -> None:
    seen = set()
    for point in points:
        if point.slug in seen:
            raise InputError(
                field, f"the point {point.slug} occurs twice", "give every point once (six digits tell numbers apart)"
            )
        seen.add(point.slug)
