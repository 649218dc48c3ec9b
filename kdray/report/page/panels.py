"""The page's figures, one a function: each draws on one pair of axes, which may also be a part of a larger figure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes

from kdray.report.arms import BASELINE, Arm, arm_of
from kdray.report.page.drawing import GREY, INK, Look, looks_of
from kdray.report.page.evidence import Evidence
from kdray.report.statistics import spread
from kdray.spec.metric_names import MetricName
from kdray.spec.points import Point

POINTS_DRAWN = 40_000  # of all curves in one figure: a browser shows it at once


def looks(evidence: Evidence) -> dict[Arm, Look]:
    """What every arm looks like, in every figure."""
    return looks_of(evidence.arms)


def direction(metric: MetricName) -> str:
    """Which way is better."""
    return "lower is better" if metric.lower_is_better else "higher is better"


def draw_effects(axis: Axes, evidence: Evidence) -> None:
    """Each arm's mean difference from SFT on the primary metric, with its interval."""
    style, arms = looks(evidence), list(evidence.effects)
    for place, arm in enumerate(arms):
        change, look = evidence.effects[arm], style[arm]
        ends = change.interval or (change.mean, change.mean)
        axis.plot(ends, [place, place], color=look.colour, lw=2.2, solid_capstyle="butt")
        axis.plot([change.mean], [place], look.marker, color=look.colour, ms=7)
    axis.axvline(0, color=INK, lw=1)
    axis.set_yticks(range(len(arms)), [f"{arm.name}\n{evidence.effects[arm]}" for arm in arms])
    axis.set_ylim(len(arms) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
    axis.margins(x=0.06)
    better = "lower" if evidence.primary.lower_is_better else "higher"
    axis.set_xlabel(f"{evidence.primary}, difference from SFT ({better} is better)")


def draw_scores(axis: Axes, evidence: Evidence, metric: MetricName) -> None:
    """Every run as a dot over its alpha; mean and standard deviation of each arm beside; reference models as lines."""
    style, alphas = looks(evidence), sorted({point.alpha for point in evidence.points})
    kinds = list(dict.fromkeys(replace(arm, alpha=0.0, temperature=1.0) for arm in evidence.arms))
    for arm in evidence.arms:
        values, look = evidence.values(arm, metric), style[arm]
        if not values:
            continue
        kind = kinds.index(replace(arm, alpha=0.0, temperature=1.0))
        x = alphas.index(arm.alpha) + 0.6 / len(kinds) * (kind - (len(kinds) - 1) / 2)
        found, beside = spread(values), 0.13 / len(kinds)
        shift = np.linspace(-0.7, 0.7, len(values)) * beside if len(values) > 1 else np.zeros(1)
        axis.plot(x - beside + shift, values, look.marker, color=look.colour, ms=3.5, alpha=0.55, mew=0)
        axis.errorbar(
            x + beside,
            found.mean,
            yerr=found.sd or 0,
            fmt=look.marker,
            color=look.colour,
            ms=6,
            capsize=3,
            lw=1.4,
            label=arm.name,
        )
    _draw_references(axis, evidence, metric)
    plain = len(kinds) == 1 and kinds[0] == BASELINE
    axis.set_xticks(range(len(alphas)), ["SFT" if alpha == 0 and plain else f"{alpha:g}" for alpha in alphas])
    axis.set_xlim(-0.6, len(alphas) - 0.4)
    axis.set_xlabel("alpha, the weight of the soft labels")
    axis.grid(visible=False, axis="x")
    axis.set_title(metric)
    axis.set_title(direction(metric), loc="right", fontsize=8, fontweight="normal", color=GREY)


def _draw_references(axis: Axes, evidence: Evidence, metric: MetricName) -> None:
    """Reference models as lines, each named at its right end."""
    for role, name in evidence.references.items():
        if score := evidence.score(role, metric):
            axis.axhline(score.value, color=GREY, lw=0.9, ls=(0, (1, 2)))
            axis.annotate(
                name,
                (1, score.value),
                (0, 2),
                ("axes fraction", "data"),
                "offset points",
                ha="right",
                va="bottom",
                fontsize=7,
                color=GREY,
            )


def cells(evidence: Evidence, arm: Arm, metric: MetricName) -> dict[tuple[float, int], float]:
    """Means over seeds by (lr, batch)."""
    found: dict[tuple[float, int], list[float]] = {}
    for point, score in evidence.scores(metric).items():
        if arm_of(point) == arm:
            found.setdefault((point.lr, point.batch), []).append(score.value)
    return {cell: statistics.fmean(values) for cell, values in found.items()}


def draw_heat(axis: Axes, evidence: Evidence, arm: Arm, metric: MetricName, limits: tuple[float, float]) -> None:
    """Means over seeds by lr and batch, each with its number; `limits` are those of all arms' colours."""
    lrs, batches = sorted({point.lr for point in evidence.points}), sorted({point.batch for point in evidence.points})
    found, (low, high) = cells(evidence, arm, metric), limits
    values = np.array([[found.get((lr, batch), np.nan) for batch in batches] for lr in lrs])
    axis.pcolormesh(np.ma.masked_invalid(values), cmap="cividis", vmin=low, vmax=high, edgecolors="white", linewidth=2)
    for (row, column), value in np.ndenumerate(values):
        dark = not np.isnan(value) and value < low + 0.55 * (high - low)
        text, colour = ("no score", GREY) if np.isnan(value) else (f"{value:.2f}", "white" if dark else "black")
        axis.text(column + 0.5, row + 0.5, text, ha="center", va="center", color=colour, fontsize=9)
    axis.set_xticks(np.arange(len(batches)) + 0.5, [f"{batch}" for batch in batches])
    axis.set_yticks(np.arange(len(lrs)) + 0.5, [f"{lr:g}" for lr in lrs])
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    axis.set_xlabel("batch")
    axis.set_ylabel("lr")
    axis.set_title(arm.name)


def draw_checkpoints(axis: Axes, evidence: Evidence, metric: MetricName) -> None:
    """Means over an arm's runs at each checkpoint, with their standard deviations."""
    style = looks(evidence)
    for arm, course in courses(evidence, metric).items():
        places, values = list(course), [spread(found) for found in course.values()]
        look, shift = style[arm], 0.012 * max(course) * (list(style).index(arm) - len(style) / 2)
        axis.errorbar(
            [place + shift for place in places],
            [found.mean for found in values],
            yerr=[found.sd or 0 for found in values],
            fmt=look.marker,
            ls=look.dashes,
            color=look.colour,
            ms=5,
            lw=1.3,
            elinewidth=0.8,
            capsize=2,
            label=arm.name,
        )
        axis.set_xticks(sorted({place for course in courses(evidence, metric).values() for place in course}))
    _draw_references(axis, evidence, metric)
    axis.set_xlabel(f"checkpoint, {evidence.grid.train.unit} of training")
    axis.set_title(metric)
    axis.set_title(direction(metric), loc="right", fontsize=8, fontweight="normal", color=GREY)


def courses(evidence: Evidence, metric: MetricName) -> dict[Arm, dict[float, list[float]]]:
    """By arm and checkpoint the values of a metric over runs."""
    found: dict[Arm, dict[float, list[float]]] = {arm: {} for arm in evidence.arms}
    for checkpoint in evidence.results.checkpoints:
        score = checkpoint.scores.get(metric)
        if score and isinstance(checkpoint.subject, Point) and checkpoint.position is not None:
            found[arm_of(checkpoint.subject)].setdefault(checkpoint.position, []).append(score.value)
    return {arm: dict(sorted(course.items())) for arm, course in found.items() if course}


def draw_pareto(
    axis: Axes, evidence: Evidence, faithful: MetricName, ability: Sequence[MetricName], title: str
) -> None:
    """Every run by its ability (x) and its faithfulness (y), the means of arms large; what no other mean beats in both
    is joined.
    """
    style, means = looks(evidence), {}
    for arm in evidence.arms:
        pairs = [
            pair
            for point in evidence.points
            if arm_of(point) == arm and (pair := both(evidence, point, faithful, ability))
        ]
        if not pairs:
            continue
        xs, ys = zip(*pairs, strict=True)
        look, means[arm] = style[arm], (statistics.fmean(xs), statistics.fmean(ys))
        axis.plot(xs, ys, look.marker, color=look.colour, ms=3.5, alpha=0.45, mew=0)
        axis.plot(
            *([value] for value in means[arm]),
            look.marker,
            color=look.colour,
            ms=10,
            mec="white",
            mew=0.8,
            label=arm.name,
        )
    for role, name in evidence.references.items():
        if pair := both(evidence, role, faithful, ability):
            axis.plot(*([value] for value in pair), "o", mfc="none", color=GREY, ms=8)
            axis.annotate(name, pair, (7, -3), textcoords="offset points", fontsize=7, color=GREY)
    front = pareto(means.values(), less=faithful.lower_is_better)
    axis.plot([x for x, _ in front], [y for _, y in front], color=GREY, lw=0.9, ls="--", zorder=1)
    axis.set_xlabel(f"{title} (higher is better)")
    axis.set_ylabel(f"{faithful} ({direction(faithful)})")
    axis.margins(0.12)


def both(
    evidence: Evidence, subject: Point | str, faithful: MetricName, ability: Sequence[MetricName]
) -> tuple[float, float] | None:
    """A model's mean ability, and its faithfulness; None where one of the numbers is missing."""
    scores, score = [evidence.score(subject, name) for name in ability], evidence.score(subject, faithful)
    known = [each.value for each in scores if each]
    return (statistics.fmean(known), score.value) if score and known and len(known) == len(scores) else None


def pareto(pairs: Iterable[tuple[float, float]], less: bool) -> list[tuple[float, float]]:
    """Those pairs that no other beats in both numbers, by the first; of the second `less` may be better."""
    sign, found = -1 if less else 1, list(pairs)
    return sorted(
        (x, y)
        for x, y in found
        if not any(a >= x and sign * b >= sign * y and (a > x or sign * b > sign * y) for a, b in found)
    )


def running_mean(values: Sequence[float], weights: Sequence[float]) -> np.ndarray:
    """[n] weighted means over a tenth of the values around each; over fewer of them at both ends."""
    window = np.ones(max(len(values) // 10, 1))
    sums = np.convolve(np.multiply(values, weights), window, "same")
    return sums / np.convolve(weights, window, "same")


def draw_curves(axis: Axes, evidence: Evidence, heldout: bool) -> None:
    """Cross-entropy of every run over the examples seen: in training (a running mean), or on held-out rows."""
    style, named = looks(evidence), set()
    curves = {point: curve for point, curve in evidence.results.curves.items() if curve}
    at_most = max(POINTS_DRAWN // max(len(curves), 1), 20)
    for point, curve in curves.items():
        arm = arm_of(point)
        look, label = style[arm], None if arm in named else arm.name
        named.add(arm)
        if heldout:
            held = [entry for entry in curve if "heldout_ce" in entry]
            xs, ys = [entry["examples"] for entry in held], [entry["heldout_ce"] for entry in held]
        else:
            labelled = [entry for entry in curve if "ce" in entry]  # steps on sampled responses have no labels
            xs = [entry["examples"] for entry in labelled]
            ce, tokens = ([entry[name] for entry in labelled] for name in ("ce", "tokens"))
            ys = list(running_mean(ce, tokens)) if labelled else []
        step = max(-(-len(xs) // at_most), 1)
        axis.plot(
            xs[::step],
            ys[::step],
            color=look.colour,
            ls=look.dashes,
            lw=1,
            alpha=0.75,
            marker=look.marker if heldout else None,
            ms=4,
            label=label,
        )
    axis.set_xlabel("examples seen")
    axis.set_ylabel("cross-entropy, nats a token")
    axis.set_title("on held-out rows" if heldout else "in training (running mean)")
