"""The plots of report.md, each one picture of several panels: scores against alpha, and losses against examples
seen.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from kdray.report.page.drawing import STYLE
from kdray.report.page.evidence import Evidence
from kdray.report.page.panels import draw_curves, draw_scores
from kdray.report.results import Results


def plot_scores(results: Results, path: Path) -> bool:
    """One panel a metric: every run as a dot, mean and spread per alpha, references as lines.

    False if there is none.
    """
    evidence = Evidence(results)
    metrics = [metric for metric in evidence.metrics if evidence.scores(metric)]
    if not metrics:
        return False
    columns = min(3, len(metrics))
    lines = -(-len(metrics) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.0 * columns, 2.9 * lines), layout="constrained")
        axes = figure.subplots(lines, columns, squeeze=False)
        for axis in axes.flat[len(metrics) :]:
            axis.set_visible(False)
        for axis, metric in zip(axes.flat, metrics, strict=False):
            draw_scores(axis, evidence, metric)
        if len(evidence.arms) > len({arm.alpha for arm in evidence.arms}):  # alpha alone does not tell them apart
            axes.flat[0].legend(fontsize=7)
        figure.savefig(path, dpi=130, facecolor="white")
    return True


def plot_curves(results: Results, path: Path) -> bool:
    """Training and held-out cross-entropy of every point over the examples seen. False if there is none."""
    if not any(results.curves.values()):
        return False
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.5, 3.4), layout="constrained")
        for axis, heldout in zip(figure.subplots(1, 2), (False, True), strict=True):
            draw_curves(axis, Evidence(results), heldout)
        figure.axes[0].legend()
        figure.savefig(path, dpi=130, facecolor="white")
    return True
