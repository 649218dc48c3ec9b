"""The report's plots: scores against alpha, and held-out loss against examples seen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from kdray.report.arms import Arm, arm_of
from kdray.report.results import Results
from kdray.report.statistics import final_scores, spread
from kdray.report.table import metrics_of, reference_name

INK, GREY = "#1f4e79", "#888888"
COLOURS = (INK, "#b3541e", "#4d7c2f", "#7b3f9e", "#b08900", "#2a8f8f")
LINES = {"gold": "-", "teacher": "--", "both": ":"}
LEGEND = {"gold": "original responses", "teacher": "teacher's answers", "both": "both"}


def _legend(arm: Arm) -> str:
    """What tells arms of one alpha apart."""
    smoothed = f"smoothed {arm.smoothing:g}" if arm.smoothing else ""
    return ", ".join(filter(None, [LEGEND[arm.labels], arm.teacher, smoothed, f"T={arm.temperature:g}" if arm.temperature != 1 else ""]))


def plot_scores(results: Results, path: Path) -> bool:
    """One panel a metric: every run as a dot, mean and spread per alpha, references as lines. False if there is none.

    Where points differ in labels or teacher, each kind of them has its colour and its place beside the tick.
    """
    metrics = [metric for metric in metrics_of(results) if final_scores(results, metric)]
    if not metrics:
        return False
    alphas = sorted({point.point.alpha for point in results.plan.points})
    kinds = list(dict.fromkeys(replace(arm_of(point.point), alpha=0.0) for point in results.plan.points))
    columns = min(3, len(metrics))
    lines = -(-len(metrics) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4.2 * columns, 3.2 * lines), squeeze=False, layout="constrained")
    for axis in axes.flat[len(metrics) :]:
        axis.set_visible(False)
    for axis, metric in zip(axes.flat, metrics, strict=False):
        scores = final_scores(results, metric)
        for kind, like in enumerate(kinds):
            label = _legend(like) if len(kinds) > 1 else None
            for place, alpha in enumerate(alphas):
                values = [score.value for point, score in scores.items() if arm_of(point) == replace(like, alpha=alpha)]
                if values:
                    summary, x = spread(values), place + 0.12 * (kind - (len(kinds) - 1) / 2)
                    axis.scatter([x] * len(values), values, s=16, color=GREY, alpha=0.7, zorder=2)
                    axis.errorbar(
                        x, summary.mean, yerr=summary.sd or 0, fmt="o", color=COLOURS[kind % len(COLOURS)], capsize=4, zorder=3, label=label
                    )
                    label = None
        for role, style in zip(results.plan.models, itertools.chain(":", itertools.cycle(("--", "-."))), strict=False):
            final = results.final(role)
            if final and metric in final.scores:
                axis.axhline(final.scores[metric].value, ls=style, color=GREY, lw=1, label=reference_name(role, results.plan))
        axis.set_title(metric, fontsize=10)
        axis.set_xticks(
            range(len(alphas)), ["SFT" if alpha == 0 and {kind.labels for kind in kinds} == {"gold"} else f"{alpha:g}" for alpha in alphas]
        )
        axis.set_xlabel("alpha")
        axis.margins(x=0.15)
    axes.flat[0].legend(fontsize=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True


def running_mean(values: Sequence[float], weights: Sequence[float]) -> np.ndarray:
    """[n] weighted means over a tenth of the values around each; over fewer of them at both ends."""
    window = np.ones(max(len(values) // 10, 1))
    sums = np.convolve(np.multiply(values, weights), window, "same")
    return sums / np.convolve(weights, window, "same")


def plot_curves(results: Results, path: Path) -> bool:
    """Training and held-out cross-entropy of every point over the examples seen. False if there is none."""
    curves = {point: curve for point, curve in results.curves.items() if curve}
    if not curves:
        return False
    alphas = sorted({point.alpha for point in curves})
    colours = {alpha: plt.get_cmap("viridis")(0.85 * i / max(len(alphas) - 1, 1)) for i, alpha in enumerate(alphas)}
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.4), layout="constrained")
    labelled = set()
    for point, curve in curves.items():
        arm, style = arm_of(point), {"color": colours[point.alpha], "ls": LINES[point.labels], "lw": 1}
        label = None if arm in labelled else arm.name
        labelled.add(arm)
        losses = running_mean([e["ce"] for e in curve], [e["tokens"] for e in curve])
        left.plot([e["examples"] for e in curve], losses, label=label, **style)
        held = [e for e in curve if "heldout_ce" in e]
        right.plot([e["examples"] for e in held], [e["heldout_ce"] for e in held], marker="o", ms=4, **style)
    left.set_title("cross-entropy in training (nats a token, running mean)", fontsize=10)
    right.set_title("cross-entropy on held-out rows", fontsize=10)
    for axis in (left, right):
        axis.set_xlabel("examples seen")
    left.legend(fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True
