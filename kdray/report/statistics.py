"""The statistics of the report: spread over runs, and what an arm scores above SFT, item by item in every cell."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kdray.artifacts.scores import Score
from kdray.report.arms import BASELINE, Arm, arm_of, arms_of
from kdray.report.crossed import Crossed, crossed, exact, holm
from kdray.report.items import side_by_side, values_of, without_values
from kdray.report.results import Checkpoint, Results, primary_metric
from kdray.spec.decodings import PLAIN
from kdray.spec.metric_names import COUNTS, MetricName
from kdray.spec.points import Point

SAME = 1e-9  # what is smaller is rounding of floats


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over `n` runs (sd is None for a single run)."""

    mean: float
    sd: float | None
    n: int

    def __str__(self) -> str:
        return f"{self.mean:z.2f}" + (f" ± {self.sd:.2f}" if self.sd is not None else "")


@dataclass(frozen=True)
class Difference:
    """An arm minus SFT over pairs of runs of equal lr, batch and seed, in the unit of the tables.

    `interval` holds for `among` arms at once; it is None where one number is all there is. `items`: how many of them
    are compared one by one, 0 where only the runs' means are, and `why` says so. `left_out`: items without a value in
    some run.
    """

    mean: float
    interval: tuple[float, float] | None
    pairs: int
    seeds: int = 1
    p: float | None = None
    among: int = 1
    items: int = 0
    left_out: int = 0
    why: str = ""
    estimate: Crossed | None = None

    @property
    def none(self) -> bool:
        """Whether the runs are equal, and not only on average."""
        return all(abs(value) < SAME for value in (self.mean, *(self.interval or ())))

    @property
    def significant(self) -> bool:
        return self.interval is not None and (self.interval[0] > SAME or self.interval[1] < -SAME)

    @property
    def smallest(self) -> float | None:
        """The smallest difference that such a comparison finds with a power of 80%."""
        found = self.estimate
        if found is None or found.effects is None:
            return None
        return found.effects.smallest(found.cells, found.items, 0.05 / self.among)

    @property
    def decimals(self) -> int:
        """Two; more where a difference from 0 would otherwise be shown as none."""
        nearest = min(map(abs, self.interval)) if self.interval and self.significant else 1.0
        return max(2, -math.floor(math.log10(nearest)))

    def __str__(self) -> str:
        mean, *ends = (signed(value, self.decimals) for value in (self.mean, *(self.interval or ())))
        return f"{mean} [{', '.join(ends)}]" if ends else mean


@dataclass(frozen=True)
class Comparison:
    """An arm against SFT on one metric; `p` is Holm's, for all comparisons of the grid together."""

    arm: Arm
    metric: MetricName
    difference: Difference
    p: float | None


@dataclass(frozen=True)
class Pairs:
    """Runs of an arm and of SFT that share lr, batch and seed, with the score of both."""

    runs: list[tuple[Checkpoint, Checkpoint]]
    cells: list[Point]


def signed(value: float, decimals: int) -> str:
    """A number with its sign; a rounded zero has none."""
    text = f"{value:+z.{decimals}f}"
    return text if text.strip("+0.") else text.removeprefix("+")


def spread(values: list[float]) -> Spread:
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def final_scores(results: Results, metric: MetricName) -> dict[Point, Score]:
    """The final value of a metric for every point that has one; a perplexity without end, say, is none."""
    finals = {point.point: results.final(point.point) for point in results.plan.points}
    found = {point: final.scores[metric] for point, final in finals.items() if final and metric in final.scores}
    return {point: score for point, score in found.items() if math.isfinite(score.value)}


def difference(results: Results, metric: MetricName, arm: Arm, among: int = 1) -> Difference | None:
    """What the runs of `arm` score above SFT's of equal lr, batch and seed; None without a pair.

    Items and cells are both samples (see `kdray.report.crossed`). The interval holds for all of `among` arms at once
    (Bonferroni): the best of many looks better than it is, and the one that is chosen is among them.
    """
    pairs = paired(results, metric, arm)
    if not pairs.runs:
        return None
    seeds = len({point.seed for point in pairs.cells})
    found = differences(pairs, metric)
    if isinstance(found, str):
        values = _of_runs(pairs, metric)
        told = Difference(float(values.mean()), None, len(pairs.runs), seeds, among=among, why=found)
    else:
        values = found.values
        told = Difference(
            float(values.mean()),
            None,
            len(pairs.runs),
            seeds,
            among=among,
            items=len(found.items),
            left_out=found.left_out,
        )
    if (estimate := crossed(values)) is None:
        return told
    p = exact(values) if not isinstance(found, str) and found.binary else None
    return replace(told, interval=estimate.interval(0.05 / among), p=estimate.p if p is None else p, estimate=estimate)


def paired(results: Results, metric: MetricName, arm: Arm) -> Pairs:
    """The runs of `arm` that have a run of SFT beside them, both with a score of `metric`."""
    runs, cells, scored = [], [], final_scores(results, metric)
    for point in scored:
        baseline = Point(alpha=0.0, lr=point.lr, batch=point.batch, seed=point.seed)
        ours, theirs = results.final(point), results.final(baseline)
        if arm_of(point) == arm and baseline in scored and ours and theirs:
            runs.append((ours, theirs))
            cells.append(point)
    return Pairs(runs, cells)


@dataclass(frozen=True)
class ByItem:
    """D [cells, items] in the tables' unit, and of which items; `left_out` have no value in some run.

    `binary`: of right and wrong.
    """

    values: NDArray[np.float64]
    items: list[str]
    left_out: int
    binary: bool


def differences(pairs: Pairs, metric: MetricName) -> ByItem | str:
    """What every item scores in the arm's run above SFT's of the same cell; or why items cannot be compared."""
    runs = []
    for checkpoint in (run for pair in pairs.runs for run in pair):
        folder, answers = checkpoint.rows.get(metric), checkpoint.answers.get(metric)
        values = values_of(folder, metric.metric, checkpoint.scores[metric]) if folder else None
        if values is None:
            return f"{metric} is no mean over items" if folder else "there are no rows behind the scores"
        runs.append({**(without_values(answers) if answers else {}), **values})
    found = side_by_side(runs)
    if isinstance(found, str):
        return found
    values, items, left_out = found
    if not items:
        return "no item has a value in all runs"
    return ByItem(
        values[0::2] - values[1::2],
        items,
        left_out,
        bool(np.isin(values, (0.0, 1.0)).all() or np.isin(values, (0.0, 100.0)).all()),
    )


def headline(results: Results) -> list[MetricName]:
    """The metrics that are tested together: what the grid is about, and of every other task the same or, where it has
    none such, its first; under the first decoding.
    """
    primary = primary_metric(results.plan)
    measured = dict.fromkeys(name for checkpoint in results.checkpoints for name in checkpoint.scores)
    chosen: dict[str, MetricName] = {}
    for name in sorted(measured, key=lambda name: (name.metric != primary.metric, name.decoding != primary.decoding)):
        if name.metric not in COUNTS and name.decoding in ("", PLAIN, primary.decoding):
            chosen.setdefault(name.task, name)
    tasks = dict.fromkeys(name.task for name in measured if name.task in chosen)
    return list(dict.fromkeys([primary, *(chosen[task] for task in tasks if task != primary.task)]))


def comparisons(results: Results) -> list[Comparison]:
    """Every arm on every headline metric, each with an interval for itself, and p after Holm's correction for all."""
    arms = [arm for arm in arms_of(point.point for point in results.plan.points) if arm != BASELINE]
    found = [
        (arm, metric, d) for metric in headline(results) for arm in arms if (d := difference(results, metric, arm))
    ]
    adjusted = iter(holm([d.p for _, _, d in found if d.p is not None]))
    return [Comparison(arm, metric, d, None if d.p is None else next(adjusted)) for arm, metric, d in found]


def _of_runs(pairs: Pairs, metric: MetricName) -> NDArray[np.float64]:
    """D [cells, 1] of the runs' scores as they stand in tables."""
    return np.array([[ours.scores[metric].value - theirs.scores[metric].value] for ours, theirs in pairs.runs])
