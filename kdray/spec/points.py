"""A grid's points: every combination of its axes, plus `include`, minus `exclude`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import get_args

from kdray.spec.errors import InputError
from kdray.spec.grid import Grid, Labels

LABELS: tuple[Labels, ...] = get_args(Labels)


@dataclass(frozen=True)
class Point:
    """One cell of the grid.

    `alpha` = 0 is plain supervised fine-tuning (SFT), on the teacher's answers also called sequence-level KD (SeqKD).
    """

    alpha: float
    lr: float
    batch: int
    seed: int
    labels: Labels = "gold"

    @property
    def slug(self) -> str:
        return f"lr{self.lr:g}-b{self.batch}-a{self.alpha:g}-s{self.seed}" + ("" if self.labels == "gold" else f"-{self.labels}")


def expand(grid: Grid) -> list[Point]:
    """The points in the order of labels (gold, teacher, both), alpha, lr, batch, seed.

    Raises:
        InputError: a point occurs twice, an excluded point is not in the grid, or none is left.
    """
    axes = grid.axes
    points = [
        Point(alpha=alpha, lr=lr, batch=batch, seed=seed, labels=labels)
        for lr, batch, alpha, seed, labels in itertools.product(axes.lr, axes.batch, axes.alpha, axes.seed, axes.labels)
    ]
    _refuse_duplicates(points, "axes")
    points += [Point(**spec.model_dump()) for spec in grid.include]
    _refuse_duplicates(points, "include")
    for i, spec in enumerate(grid.exclude):
        point = Point(**spec.model_dump())
        if point not in points:
            raise InputError(f"exclude.{i}", f"{point.slug} is not in the grid", "exclude only points of axes or include")
        points.remove(point)
    if not points:
        raise InputError("exclude", "leaves no point", "keep at least one point")
    return sorted(points, key=lambda p: (LABELS.index(p.labels), p.alpha, p.lr, p.batch, p.seed))


def _refuse_duplicates(points: list[Point], field: str) -> None:
    seen = set()
    for point in points:
        if point.slug in seen:
            raise InputError(field, f"the point {point.slug} occurs twice", "give every point once (six digits tell numbers apart)")
        seen.add(point.slug)
