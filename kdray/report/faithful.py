"""Metrics that hold answers against their source: which they are, and what is left of a difference at equal length and
copying.
"""

from __future__ import annotations

import numpy as np

from kdray.plan.steps import Plan
from kdray.report.crossed import Crossed
from kdray.report.manner import adjusted, manners_of, mean_manner
from kdray.report.results import taken_of
from kdray.report.statistics import Pairs, differences
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.metric_names import MetricName
from kdray.spec.metrics import scores_of


def stands_in(metric: MetricName, plan: Plan) -> bool:
    """Whether a metric is declared to stand in for a better one that could not be had."""
    use = _metric_of(metric, plan)
    return use is not None and use.standin


def rewards_copying(metric: MetricName, plan: Plan) -> bool:
    """Whether a metric holds answers against their source."""
    use = _metric_of(metric, plan)
    return metric.metric == "fr" or (use is not None and "source" in use.needs)


def _metric_of(metric: MetricName, plan: Plan) -> declare.Metric | None:
    """What declares a score of answers; None of others."""
    found = (use.name for use in taken_of(metric, plan) if metric.metric in scores_of(use))
    return next((declared(declare.Metric, name) for name in found), None)


def mean_manners(
    pairs: Pairs, metric: MetricName
) -> tuple[tuple[float, float | None], tuple[float, float | None]] | None:
    """Mean words and percent copied, of the arm's answers and of SFT's."""
    sides = []
    for side in (0, 1):
        folders = [run[side].answers[metric] for run in pairs.runs if metric in run[side].answers]
        if not folders:
            return None
        found = [mean_manner(folder) for folder in folders]
        copied = [coverage for _, coverage, _ in found if coverage is not None]
        sides.append((float(np.mean([words for words, _, _ in found])), float(np.mean(copied)) if copied else None))
    return sides[0], sides[1]


def at_equal_manner(pairs: Pairs, metric: MetricName) -> Crossed | None:
    """The difference at equal length (in log words) and equal share of copied words; None where answers or items are
    not kept.
    """
    found = differences(pairs, metric)
    if isinstance(found, str) or not all(metric in run.answers for pair in pairs.runs for run in pair):
        return None
    values, items = found.values, found.items
    told = [[manners_of(run.answers[metric]) for run in pair] for pair in pairs.runs]
    if not all(item in manners for pair in told for manners in pair for item in items):
        return None
    words, copied = (
        np.array([[of(ours[item]) - of(theirs[item]) for item in items] for ours, theirs in told])
        for of in (lambda m: float(np.log1p(m.words)), lambda m: m.coverage or 0.0)
    )
    return adjusted(values, [words, copied])
