"""A mean over items x cells where both are samples: its standard error, interval, test and power.

An item is a document or a question, a cell a learning rate, batch and seed. D [cells, items] is what an arm scores
above the baseline on the same item in the same cell. With independent effects of cells, of items and of both together,
D[c, i] = mean + a[c] + b[i] + e[c, i], and the variance of the mean of all C x n is

    var(a) / C + var(b) / n + var(e) / (C n)  =  (MS_cells + MS_items - MS_both) / (C n)

in the mean squares of a two-way analysis of variance (Cameron, Gelbach and Miller 2011 add and subtract the same three
terms). Degrees of freedom are Satterthwaite's. Where cells differ by no more than chance (MS_cells <= MS_both) only
items count. Two cells have one degree of freedom, which is too few for that choice: the wider of both intervals and
the larger p hold there. `benchmarks/intervals.py` measures how often such an interval covers the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import root_scalar

POWER = 0.8  # with which the smallest difference is seen
FEW = 2  # cells among which nobody can tell whether they differ


@dataclass(frozen=True)
class Effects:
    """Variances of one cell's effect, of one item's, and of what is left, none below 0."""

    cells: float
    items: float
    both: float

    def error(self, cells: int, items: int) -> tuple[float, float]:
        """The standard error of a mean over so many cells and items, and its degrees of freedom."""
        size = cells * items
        of_both = self.both / size
        of_cells, of_items = self.cells / cells + of_both, self.items / items + of_both
        squares = [(of_items, items - 1), (of_both, (cells - 1) * (items - 1))]
        if self.cells > 0 and cells > 1:
            squares.append((of_cells, cells - 1))
            total = of_cells + of_items - of_both
        else:
            total, squares = of_items, squares[:1]
        noise = sum(part * part / df for part, df in squares if df > 0)
        return math.sqrt(total), total * total / noise if noise else float(items - 1)

    def smallest(self, cells: int, items: int, level: float = 0.05, power: float = POWER) -> float:
        """The smallest difference that a two-sided test at `level` finds with this power; of two cells one that both
        tests find, that over items and that over cells.
        """
        errors = [self.error(cells, items)]
        if cells == FEW:
            of_both = self.both / (cells * items)
            samples = ((self.items, items), (self.cells, cells))
            errors = [(math.sqrt(variance / size + of_both), size - 1.0) for variance, size in samples]
        return max(_shift(df, level, power) * error for error, df in errors)


@dataclass(frozen=True)
class Crossed:
    """The mean of D, its standard error and degrees of freedom.

    `effects` are None of a single item; of a single cell all variance is the items'. Of two cells `error` and `df` are
    those over items, and `over_cells` those over cells.
    """

    mean: float
    error: float
    df: float
    cells: int
    items: int
    effects: Effects | None
    over_cells: tuple[float, float] | None = None

    def interval(self, level: float = 0.05) -> tuple[float, float]:
        """The interval that misses the truth with probability `level`, half of it on each side."""
        half = max(float(stats.t.ppf(1 - level / 2, df)) * error for error, df in self._errors)
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """Of the two-sided test that the true mean is 0; 1 where all differences are 0."""
        if self.mean == 0:
            return 1.0
        return max(float(2 * stats.t.sf(abs(self.mean) / error, df)) if error else 0.0 for error, df in self._errors)

    def widened(self, by: float) -> Crossed:
        """With another independent error added to its own."""
        over_cells = self.over_cells and (math.hypot(self.over_cells[0], by), self.over_cells[1])
        return replace(self, error=math.hypot(self.error, by), over_cells=over_cells)

    @property
    def _errors(self) -> list[tuple[float, float]]:
        return [(self.error, self.df), *([self.over_cells] if self.over_cells else [])]


def _shift(df: float, level: float, power: float) -> float:
    """So many standard errors must the truth be away from 0 for a two-sided t test at `level` to find it, on its side,
    with this power (noncentral t).
    """
    bound = float(stats.t.ppf(1 - level / 2, df))
    return root_scalar(lambda shift: stats.nct.sf(bound, df, shift) - power, bracket=(0.0, 10 * bound)).root


def crossed(differences: NDArray[np.float64]) -> Crossed | None:
    """The mean of D [cells, items], without gaps; None where there is but one number of each, which has no error.

    With one cell only items are a sample, with one item only cells.
    """
    cells, items = differences.shape
    mean = float(differences.mean())
    if min(cells, items) == 1:
        values = differences.ravel()
        if len(values) < 2:
            return None
        effects = Effects(0.0, float(values.var(ddof=1)), 0.0) if cells == 1 else None
        return Crossed(mean, float(values.std(ddof=1)) / math.sqrt(len(values)), len(values) - 1, cells, items, effects)
    by_cell, by_item = differences.mean(1), differences.mean(0)
    left = differences - by_cell[:, None] - by_item[None] + mean
    ms_cells, ms_items = items * float(by_cell.var(ddof=1)), cells * float(by_item.var(ddof=1))
    ms_both = float((left * left).sum()) / ((cells - 1) * (items - 1))
    of_cells, of_items = max(0.0, (ms_cells - ms_both) / items), max(0.0, (ms_items - ms_both) / cells)
    effects = Effects(of_cells, of_items, ms_both)
    size = cells * items
    if cells == FEW:
        over_cells = math.sqrt(ms_cells / size), cells - 1.0
        return Crossed(mean, math.sqrt(ms_items / size), items - 1, cells, items, effects, over_cells)
    if ms_cells <= ms_both:
        return Crossed(mean, math.sqrt(ms_items / size), items - 1, cells, items, effects)
    variance = max(ms_cells + ms_items - ms_both, ms_cells, ms_items) / size
    noise = (
        (ms_cells / size) ** 2 / (cells - 1)
        + (ms_items / size) ** 2 / (items - 1)
        + (ms_both / size) ** 2 / ((cells - 1) * (items - 1))
    )
    return Crossed(mean, math.sqrt(variance), variance * variance / noise, cells, items, effects)


def exact(differences: NDArray[np.float64]) -> float | None:
    """McNemar's exact p of one cell's right and wrong answers, D [1, items] of -1, 0 and 1 in any unit; None of several
    cells.
    """
    if len(differences) != 1:
        return None
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    return float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def holm(ps: list[float]) -> list[float]:
    """The p of every test after Holm's step-down correction for all of them (Holm 1979)."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = largest
    return adjusted
