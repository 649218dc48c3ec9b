"""The verdict on a grid's primary metric, and when there can be none."""

from __future__ import annotations

from kdray.report.arms import BASELINE, Arm, arms_of
from kdray.report.results import RUNTIME, Results, primary_metric
from kdray.report.statistics import Difference, difference, final_scores, signed
from kdray.spec.metric_names import MetricName

FEWEST_PAIRS = 5  # runs of equal lr, batch and seed of an arm and of SFT
FEWEST_EXAMPLES = 100  # behind each score


def too_small(results: Results, metric: MetricName) -> str | None:
    """Why nothing can be concluded from this grid, or None."""
    scores = final_scores(results, metric)
    arms = arms_of(scores)
    if BASELINE not in arms or len(arms) < 2:
        wanted = "alpha = 0 and with alpha > 0" if _gold_alone(results) else "alpha = 0 on the original responses and others"
        return f"there is nothing to compare yet: it needs scored points with {wanted}"
    pairs = min((d.pairs for arm in arms if arm != BASELINE and (d := difference(results, metric, arm))), default=0)
    examples = min(score.n for score in scores.values())
    reasons = []
    if pairs < FEWEST_PAIRS:
        reasons.append(f"{pairs} run{'s' * (pairs != 1)} per alpha (at least {FEWEST_PAIRS})")
    if examples < FEWEST_EXAMPLES:
        reasons.append(f"{examples} examples behind each score (at least {FEWEST_EXAMPLES})")
    return f"this grid is too small to conclude anything from: {', '.join(reasons)}" if reasons else None


def verdict(results: Results) -> list[str]:
    """The verdict in sentences; none where models are only scored."""
    if not results.plan.points:
        return []
    return _findings(results) + _mixed_runtimes(results)


def _findings(results: Results) -> list[str]:
    metric = primary_metric(results.plan)
    if not final_scores(results, metric) and any(checkpoint.scores for checkpoint in results.checkpoints):
        return [f"No verdict: no point has a score of {metric} so far (report.primary may name another metric)."]
    reason = too_small(results, metric)
    sentences = [f"No verdict: {reason}."] if reason else []
    sign = -1 if metric.lower_is_better else 1
    arms = [arm for arm in arms_of(point.point for point in results.plan.points) if arm != BASELINE]
    found = {arm: d for arm in arms if (d := difference(results, metric, arm, among=len(arms)))}
    if not found:
        return sentences
    best = max(found, key=lambda arm: sign * found[arm].mean)
    change = found[best]
    winner = f"the best alpha is {best.alpha:g}" if _gold_alone(results) else f"the best row is {best.name}"
    runs = f"over {change.pairs} paired run{'s' * (change.pairs != 1)}"
    all_arms = "both" if len(arms) == 2 else f"all {len(arms)}"
    together = f", 95% for {all_arms} at once" if len(arms) > 1 and change.interval else ""
    sentences.append(f"On {metric}, {winner}: {change} against SFT {runs}{together} ({_direction(change, sign)}).")
    return sentences + _harm(results, best)


def _direction(change: Difference, sign: int) -> str:
    """What a difference means, and no more than the numbers show that are printed beside it."""
    if change.none:
        return "no difference"
    direction, unsure = "better" if sign * change.mean > 0 else "worse", "not distinguishable from no difference"
    if change.significant:
        return direction
    return f"{direction}, {unsure}" if float(signed(change.mean, change.decimals)) else unsure


def _mixed_runtimes(results: Results) -> list[str]:
    """A warning for each setting that does not change ids, and by rounding alone numbers, but differs between points."""
    sentences = []
    for name in RUNTIME:
        values = {str(runtime[name]) for runtime in results.runtimes.values()}
        if len(values) > 1:
            sentences.append(f"Note: the points ran with different {name}: {', '.join(sorted(values))}.")
    return sentences


def _gold_alone(results: Results) -> bool:
    """Whether alpha alone tells the arms apart."""
    return all(point.point.labels == "gold" for point in results.plan.points)


def _harm(results: Results, arm: Arm) -> list[str]:
    """One sentence for each task of `report.margin` on which the best arm loses more than allowed."""
    sentences, there = [], "At that alpha" if _gold_alone(results) else "There"
    for task, margin in results.plan.grid.report.margin.items():
        for metric in (MetricName(task, "acc_norm"), MetricName(task, "acc")):
            change = difference(results, metric, arm)
            if change and change.mean < -100 * margin:
                sentences.append(f"{there} {metric} falls by {-change.mean:.2f}, more than the margin of {100 * margin:g}.")
    return sentences
