"""The statistics of the report: spread over runs, and differences between runs that share everything but their arm."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from scipy import stats

from kdray.artifacts.scores import Score
from kdray.report.arms import Arm, arm_of
from kdray.report.results import Results
from kdray.spec.metric_names import MetricName
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
    """An arm minus SFT over pairs of runs of equal lr, batch and seed: mean and 95% interval (None for one pair)."""

    mean: float
    interval: tuple[float, float] | None
    pairs: int

    @property
    def none(self) -> bool:
        """Whether the runs are equal, and not only on average."""
        return all(abs(value) < SAME for value in (self.mean, *(self.interval or ())))

    @property
    def significant(self) -> bool:
        return self.interval is not None and (self.interval[0] > SAME or self.interval[1] < -SAME)

    @property
    def decimals(self) -> int:
        """Two; more where a difference from 0 would otherwise be shown as none."""
        nearest = min(map(abs, self.interval)) if self.interval and self.significant else 1.0
        return max(2, -math.floor(math.log10(nearest)))

    def __str__(self) -> str:
        mean, *ends = (signed(value, self.decimals) for value in (self.mean, *(self.interval or ())))
        return f"{mean} [{', '.join(ends)}]" if ends else mean


def signed(value: float, decimals: int) -> str:
    """A number with its sign; a rounded zero has none."""
    text = f"{value:+z.{decimals}f}"
    return text if text.strip("+0.") else text.removeprefix("+")


def spread(values: list[float]) -> Spread:
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def final_scores(results: Results, metric: MetricName) -> dict[Point, Score]:
    """The final value of a metric for every point that has one."""
    finals = {point.point: results.final(point.point) for point in results.plan.points}
    return {point: final.scores[metric] for point, final in finals.items() if final and metric in final.scores}


def difference(results: Results, metric: MetricName, arm: Arm, among: int = 1) -> Difference | None:
    """The runs of `arm` against SFT, paired by lr, batch and seed (Student's t); None without a pair.

    The interval holds for all of `among` arms at once (Bonferroni): the best of many looks better than it is.
    """
    scores = final_scores(results, metric)
    deltas = []
    for point, score in scores.items():
        baseline = scores.get(Point(alpha=0.0, lr=point.lr, batch=point.batch, seed=point.seed))
        if arm_of(point) == arm and baseline:
            deltas.append(score.value - baseline.value)
    if not deltas:
        return None
    mean, interval = statistics.fmean(deltas), None
    if len(deltas) > 1:
        half = float(stats.t.ppf(1 - 0.025 / among, len(deltas) - 1)) * statistics.stdev(deltas) / len(deltas) ** 0.5
        interval = (mean - half, mean + half)
    return Difference(mean, interval, len(deltas))
