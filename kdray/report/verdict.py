"""The verdict on a grid's primary metric: what was found, what it rests on, and what else would explain it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from kdray.artifacts.scores import Score
from kdray.plan.steps import Plan
from kdray.report.arms import BASELINE, Arm, arms_of
from kdray.report.faithful import at_equal_manner, mean_manners, rewards_copying, stands_in
from kdray.report.results import RUNTIME, Results, primary_metric
from kdray.report.statistics import Difference, comparisons, difference, final_scores, headline, paired, signed
from kdray.spec.metric_names import MetricName

FEWEST_CELLS = 3  # runs of equal lr, batch and seed of an arm and of SFT, below which an interval is a guess
FEWEST_ITEMS = 100


@dataclass(frozen=True)
class Findings:
    """Every arm against SFT on the primary metric, the intervals for all arms at once, and the best of them."""

    metric: MetricName
    arms: dict[Arm, Difference]
    best: Arm

    @property
    def change(self) -> Difference:
        """Of the best arm."""
        return self.arms[self.best]


def findings(results: Results) -> Findings | None:
    """None as long as no arm can be compared with SFT."""
    metric = primary_metric(results.plan)
    arms = [arm for arm in arms_of(point.point for point in results.plan.points) if arm != BASELINE]
    found = {arm: d for arm in arms if (d := difference(results, metric, arm, among=len(arms)))}
    if not found:
        return None
    sign = -1 if metric.lower_is_better else 1
    return Findings(metric, found, max(found, key=lambda arm: sign * found[arm].mean))


def verdict(results: Results) -> list[str]:
    """The verdict in sentences, the answer first; none where models are only scored."""
    if not results.plan.points:
        return []
    found = findings(results)
    if found is None:
        return [_nothing(results), *_unscored(results), *_selected(results), *_mixed_runtimes(results)]
    reason = too_small(found)
    sentences = [_answer(found, results.plan)] + ([f"{reason[0].upper()}{reason[1:]}."] if reason else [])
    sentences += [_rests_on(found, results), *_smallest(found), *_elsewhere(found, results)]
    sentences += [*_beside(found, results), *_margins(found, results)]
    return [*sentences, *_unscored(results), *_selected(results), *_mixed_runtimes(results)]


def _nothing(results: Results) -> str:
    metric = primary_metric(results.plan)
    if not final_scores(results, metric) and any(checkpoint.scores for checkpoint in results.checkpoints):
        return f"No verdict: no point has a score of {metric} so far (report.primary may name another metric)."
    wanted = (
        "alpha = 0 and with alpha > 0" if _gold_alone(results) else "alpha = 0 on the original responses and others"
    )
    return (
        f"No verdict: there is nothing to compare yet: it needs scored points with {wanted}, at the same lr, batch and"
        " seed."
    )


def _answer(found: Findings, plan: Plan) -> str:
    """The sentence that people quote: it says by itself how sure it is, and of what."""
    metric, change = found.metric, found.change
    told = (
        f"{found.best.name} scores {change} against SFT ({direction_of(change, -1 if metric.lower_is_better else 1)})"
    )
    among = f", the best of {len(found.arms)} arms" if len(found.arms) > 1 else ""
    standin = " That metric is a stand-in and measures no facts." if stands_in(metric, plan) else ""
    return f"On {metric}, {told}{among}.{standin}"


def direction_of(change: Difference, sign: int) -> str:
    """What a difference means, and no more than the numbers show that are printed beside it."""
    if change.none:
        return "no difference"
    if not change.significant:
        return "no difference shown"
    return "better" if sign * change.mean > 0 else "worse"


def _rests_on(found: Findings, results: Results) -> str:
    """How much was compared, what the interval counts as samples, and how often chance was asked."""
    change = found.change
    runs = f"{change.pairs} pair{'s' * (change.pairs != 1)} of runs"
    seeds = f"{change.seeds} seeds" if change.seeds > 1 else "one seed, so that seeds are no part of the interval"
    over = f"{change.items} items in each of {runs} ({seeds})"
    if not change.items:
        over = f"{runs} ({seeds}), not item by item: {change.why}"
    parts = [f"That is over {over}"]
    if (left := change.left_out) == 1:
        parts.append("1 item has no score in some run and is left out")
    elif left:
        parts.append(f"{left} items have no score in some run and are left out")
    if change.interval and len(found.arms) > 1:
        parts.append(
            f"the interval holds with 95% for all {len(found.arms)} arms at once, so the choice of the best is in it"
        )
    tested = [c for c in comparisons(results) if c.p is not None]
    own = next((c.p for c in tested if (c.arm, c.metric) == (found.best, found.metric)), None)
    if own is not None and len(tested) > 1:
        parts.append(
            f"p {shown_p(own)} after Holm's correction for all {len(tested)} comparisons of arms and headline metrics"
        )
    elif own is not None:
        parts.append(f"p {shown_p(own)}")
    return "; ".join(parts) + "."


def too_small(found: Findings) -> str | None:
    """Why nothing can be concluded from what was compared, or None."""
    change = found.change
    few = (
        [f"{change.pairs} run{'s' * (change.pairs != 1)} an arm (at least {FEWEST_CELLS})"]
        if change.pairs < FEWEST_CELLS
        else []
    )
    few += [f"{change.items} items (at least {FEWEST_ITEMS})"] if 0 < change.items < FEWEST_ITEMS else []
    return f"this grid is too small to conclude anything from: {', '.join(few)}" if few else None


def _smallest(found: Findings) -> Iterator[str]:
    """Where no difference is shown, the one that a comparison of this size would have shown."""
    if found.change.smallest is not None and not found.change.significant:
        yield f"A difference of {found.change.smallest:.2f} would have been found four times in five."


def _elsewhere(found: Findings, results: Results) -> Iterator[str]:
    """What the best arm does in the same metric of other tasks."""
    others = [
        metric
        for metric in headline(results)
        if metric.metric == found.metric.metric and metric.task != found.metric.task
    ]
    changes = [(metric, change) for metric in others if (change := difference(results, metric, found.best))]
    told = [
        f"{change} on {metric} ({direction_of(change, -1 if metric.lower_is_better else 1)}"
        f"{f', {change.items} items' if change.items else ''})"
        for metric, change in changes
    ]
    if told:
        yield f"Elsewhere {found.best.name} scores {', '.join(told)}, by intervals without a correction."


def _beside(found: Findings, results: Results) -> Iterator[str]:
    """For a metric of faithfulness: whether answers became shorter or copied more, and what is left of the gain at
    equal manner.
    """
    if not rewards_copying(found.metric, results.plan):
        return
    pairs = paired(results, found.metric, found.best)
    if (manner := mean_manners(pairs, found.metric)) is None:
        return
    (words, copied), (sft_words, sft_copied) = manner
    copies = f", of which {copied:.0f}% are copied" if copied is not None else ""
    beside = f" and {sft_copied:.0f}%" if sft_copied is not None else ""
    told = (
        f"Its answers have {words:.1f} words{copies} (SFT: {sft_words:.1f}{beside}), and detectors reward short and"
        " copied text"
    )
    if (left := at_equal_manner(pairs, found.metric)) is None:
        yield f"{told}."
        return
    low, high = left.interval()
    gone = found.change.significant and low <= 0 <= high
    yield (
        f"{told}: at equal length and copying the difference is {signed(left.mean, 2)} [{signed(low, 2)},"
        f" {signed(high, 2)}]{', so that the difference goes away with it' if gone else ''}."
    )


def _margins(found: Findings, results: Results) -> Iterator[str]:
    """Whether the best arm loses no more than the entries of `report.margin` say, as far as the intervals tell: one
    sentence for all metrics of which the same is told.
    """
    told = defaultdict[str, list[str]](list)
    for name, margin in results.plan.grid.report.margin.items():
        named = [MetricName.parse(name)] if "/" in name else [MetricName(name, "acc_norm"), MetricName(name, "acc")]
        allowed = margin if "/" in name else 100 * margin
        for metric in named:
            change = difference(results, metric, found.best)
            if change is None or change.estimate is None:
                continue
            low, high = change.estimate.interval(0.1)  # each end by itself errs once in twenty
            least, most = (-high, -low) if metric.lower_is_better else (low, high)
            if least > -allowed:
                what = f"{found.best.name} loses no more than the margin of {allowed:g}"
            elif most < -allowed:
                what = f"{found.best.name} loses more than the margin of {allowed:g}"
            else:
                what = f"It is not shown that {found.best.name} loses no more than the margin of {allowed:g}"
            told[what].append(f"{metric} ({signed(change.mean, 2)} [{signed(low, 2)}, {signed(high, 2)}])")
    for what, metrics in told.items():
        yield f"{what} on {', '.join(metrics)}; intervals of 90%."


def _unscored(results: Results) -> Iterator[str]:
    """Arms of which nothing is scored: not averaged away."""
    points = [point.point for point in results.plan.points]
    finals = {point: final for point in points if (final := results.final(point))}
    missing = [arm.name for arm in arms_of(points) if arm not in arms_of(finals)]
    metric = primary_metric(results.plan)
    if lost := [point.slug for point, final in finals.items() if _is_lost(final.scores.get(metric))]:
        yield f"{metric} is no number, and left out, of {', '.join(sorted(lost))}."
    if missing and finals:
        yield f"No run of {', '.join(missing)} has a score (not trained yet, failed or diverged)."


def _selected(results: Results) -> Iterator[str]:
    """What a search has left: survivors, which say less than a whole grid."""
    if results.early:
        yield (
            f"{len(results.early)} of {len(results.plan.points)} points were stopped early, by their held-out loss"
            " (search). The runs that are left were chosen: an arm's mean is not that over its whole lr x batch x seed,"
            " and its spread is too small. Arms are compared over the cells in which both were trained to the end."
        )


def _is_lost(score: Score | None) -> bool:
    return score is not None and not math.isfinite(score.value)


def _mixed_runtimes(results: Results) -> Iterator[str]:
    """A warning for each setting that does not change ids, and by rounding alone numbers, but differs between
    points.
    """
    for name in RUNTIME:
        values = {str(runtime[name]) for runtime in results.runtimes.values()}
        if len(values) > 1:
            yield f"Note: the points ran with different {name}: {', '.join(sorted(values))}."


def _gold_alone(results: Results) -> bool:
    """Whether alpha alone tells the arms apart."""
    return all(point.point.labels == "gold" for point in results.plan.points)


def shown_p(value: float) -> str:
    """With three decimals, as far as they say anything."""
    return "< 0.001" if value < 1e-3 else f"= {value:.3f}"
