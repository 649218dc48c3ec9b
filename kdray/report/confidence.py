"""How sure models are of their wrong answers: a kernel density of the negative log-likelihoods."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import gaussian_kde

from kdray.artifacts.scores import read_rows
from kdray.plan.steps import Subject
from kdray.report.arms import arm_of
from kdray.report.results import Results
from kdray.report.table import reference_name
from kdray.spec import declare
from kdray.spec.components import declared

LEAST = 3  # wrong answers for a curve


def plot_confidence(results: Results, path: Path) -> bool:
    """One panel a task that asks for it, one curve an arm (over all its runs) or reference model. False if there is none."""
    panels = {task: curves for task in _tasks(results) if (curves := _curves(results, task))}
    if not panels:
        return False
    figure, axes = plt.subplots(1, len(panels), figsize=(5.2 * len(panels), 3.4), squeeze=False, layout="constrained")
    references = [reference_name(role, results.plan) for role in results.plan.models]
    for axis, (task, curves) in zip(axes.flat, panels.items(), strict=True):
        places = np.linspace(0, max(map(max, curves.values())) * 1.1, 200)
        for label, values in curves.items():
            style = "--" if label in references else "-"
            axis.plot(places, gaussian_kde(values)(places), ls=style, label=f"{label} ({len(values)})")
        axis.set_title(task, fontsize=10)
        axis.set_xlabel("NLL of wrong answers (nats); sure at 0")
        axis.set_ylabel("density")
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return True


def _tasks(results: Results) -> list[str]:
    names = [use.name for use in results.plan.grid.score.tasks]
    return [name for name in names if isinstance(task := declared(declare.Task, name), declare.ChoiceTask) and task.confidence]


def _curves(results: Results, task: str) -> dict[str, list[float]]:
    """The values behind each curve, of final checkpoints; those too few or all alike for a density are left out."""
    values: dict[str, list[float]] = defaultdict(list)
    for role in results.plan.models:
        values[reference_name(role, results.plan)] += _wrong(results, role, task)
    for point in results.plan.points:
        values[arm_of(point.point).name] += _wrong(results, point.point, task)
    return {label: found for label, found in values.items() if len(found) >= LEAST and max(found) > min(found)}


def _wrong(results: Results, subject: Subject, task: str) -> list[float]:
    """The negative log-likelihoods (nats) of the answers that a model gave and that were wrong."""
    final = results.final(subject)
    if final is None or task not in final.measured:
        return []
    rows = read_rows(final.measured[task].path, ["gold", "chosen", "loglikelihoods"]).to_pylist()
    return [-row["loglikelihoods"][row["chosen"]] for row in rows if row["gold"] is not None and row["chosen"] != row["gold"]]
