"""How sure models are of their wrong answers: a kernel density of the negative log-likelihoods.

Nothing lies below 0, so that the density is mirrored there: a plain one would lose what it smears across, just where
models are surest. Every curve has an area of 1, however many answers are wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import gaussian_kde

from kdray.artifacts.scores import read_rows
from kdray.plan.steps import Subject
from kdray.report.arms import BASELINE, Arm, arm_of
from kdray.report.page.drawing import GREY, STYLE, looks_of
from kdray.report.results import Results
from kdray.report.table import reference_name
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.sections.base import Use

LEAST = 3  # wrong answers for a curve
SHOWN = 0.99  # of a curve's answers lie on the axis, however far out the last ones are


@dataclass
class Taken:
    """Answers of one arm, or of one reference model: the negative log-likelihoods (nats) of the wrong ones, and the
    number of all.
    """

    arm: Arm | None  # None for a reference model
    wrong: list[float] = field(default_factory=list)
    asked: int = 0

    @property
    def has_density(self) -> bool:
        return len(self.wrong) >= LEAST and max(self.wrong) > min(self.wrong)


def plot_confidence(results: Results, path: Path) -> bool:
    """One panel a task that asks for it. False if there is none."""
    tasks = confidence_tasks(results)
    if not tasks:
        return False
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4 * len(tasks), 3.8), layout="constrained")
        for axis, use in zip(figure.subplots(1, len(tasks), squeeze=False).flat, tasks, strict=True):
            draw_confidence(axis, results, use)
        figure.savefig(path, dpi=130, facecolor="white")
    return True


def confidence_tasks(results: Results) -> list[Use]:
    """The tasks that ask for it and have a curve to draw."""
    return [use for use in _tasks(results) if curves_of(results, use)[0]]


def draw_confidence(axis: Axes, results: Results, use: Use) -> None:
    """One curve an arm (over all its runs) or reference model."""
    curves, choices = curves_of(results, use)
    guess = math.log(choices) if choices else 0.0
    most = max(guess, *(np.quantile(taken.wrong, SHOWN) for taken in curves.values()))
    places, styles = np.linspace(0, most * 1.05, 300), styles_of(curves, results)
    for label, taken in curves.items():
        share = f"{len(taken.wrong)} of {taken.asked} wrong"
        axis.plot(places, density(taken.wrong, places), label=f"{label} ({share})", **styles[label])
    if choices:
        axis.axvline(guess, color=GREY, lw=0.8, ls=":")
        axis.text(
            guess, 1.01, f"1 in {choices}", transform=axis.get_xaxis_transform(), ha="center", fontsize=7, color=GREY
        )
    axis.set_title(use.name, pad=14)
    axis.set_xlabel("NLL of wrong answers (nats): at 0 a model is sure of them")
    axis.set_ylabel("density")
    axis.set_xlim(0, places[-1])
    axis.set_ylim(bottom=0)
    axis.legend()


def density(values: Sequence[float], places: np.ndarray) -> np.ndarray:
    """The density at `places`, from 0 on, of values that are never less than 0."""
    kernel = gaussian_kde(values)
    return kernel(places) + kernel(-places)


def styles_of(curves: Mapping[str, Taken], results: Results) -> dict[str, dict]:
    """Dots for reference models, the arms as in every figure."""
    looks = looks_of(arm_of(point.point) for point in results.plan.points)
    references = [label for label, taken in curves.items() if taken.arm is None]
    styles: dict[str, dict] = {
        label: {"color": GREY, "ls": (0, (1, 1 + i)), "lw": 1.4} for i, label in enumerate(references)
    }
    for label, taken in curves.items():
        if taken.arm:
            look = looks[taken.arm]
            styles[label] = {"color": look.colour, "ls": look.dashes, "lw": 2.0 if taken.arm == BASELINE else 1.4}
    return styles


def _tasks(results: Results) -> list[Use]:
    return [
        use
        for use in results.plan.grid.score.tasks
        if isinstance(task := declared(declare.Task, use.name), declare.ChoiceTask) and task.confidence
    ]


def curves_of(results: Results, use: Use) -> tuple[dict[str, Taken], int | None]:
    """What is behind each curve, of final checkpoints, by its label: references first, without those that have no
    density.

    And how many choices the questions have, if all have as many.
    """
    found, choices = {}, set()
    for role, step in results.plan.models.items():
        shots = use.params.get("untrained_shots") if step.untuned is step else None
        label = reference_name(role, results.plan) + (f", {shots} shots" if shots else "")
        found[label] = Taken(None)
        choices |= _add(found[label], results, role, use.name)
    for point in results.plan.points:
        arm = arm_of(point.point)
        taken = found.setdefault(arm.name, Taken(arm))
        choices |= _add(taken, results, point.point, use.name)
    return {label: taken for label, taken in found.items() if taken.has_density}, choices.pop() if len(
        choices
    ) == 1 else None


def _add(taken: Taken, results: Results, subject: Subject, task: str) -> set[int]:
    """Add the answers that a model gave to a task's questions; returns the numbers of choices that these have."""
    final = results.final(subject)
    if final is None or task not in final.measured:
        return set()
    rows = read_rows(final.measured[task].path, ["gold", "chosen", "loglikelihoods"]).to_pylist()
    answered = [row for row in rows if row["gold"] is not None]
    taken.asked += len(answered)
    taken.wrong += [-row["loglikelihoods"][row["chosen"]] for row in answered if row["chosen"] != row["gold"]]
    return {len(row["loglikelihoods"]) for row in answered}
