"""Which figures a grid's page has, and what they say in words.

Panels are figures of their own, so that a phone shows one a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kdray.report.arms import arm_of
from kdray.report.confidence import confidence_tasks, draw_confidence
from kdray.report.page.drawing import CSS, Look, Picture, listed, picture
from kdray.report.page.evidence import Evidence
from kdray.report.page.panels import (
    both,
    cells,
    courses,
    direction,
    draw_checkpoints,
    draw_curves,
    draw_effects,
    draw_heat,
    draw_pareto,
    draw_scores,
    looks,
)
from kdray.spec.metric_names import MetricName
from kdray.spec.points import Point

MOST = 18  # panels of scores; the tables have all
MOST_COURSES = 6


@dataclass
class Gallery:
    """The figures by what they are about; each list may be empty."""

    effects: Picture | None = None
    scores: list[Picture] = field(default_factory=list)
    heats: list[Picture] = field(default_factory=list)
    curves: list[Picture] = field(default_factory=list)
    checkpoints: list[Picture] = field(default_factory=list)
    pareto: Picture | None = None
    confidence: list[Picture] = field(default_factory=list)
    legend: list[tuple[str, Look, str]] = field(default_factory=list)


def gallery_of(evidence: Evidence, folder: Path, prefix: str = "") -> Gallery:
    """Draw a grid's figures into a folder. `prefix` keeps names apart from those of other grids on the page."""
    gallery = Gallery()
    if not evidence.finals and not any(evidence.results.curves.values()):
        return gallery
    gallery.legend = [
        (arm.name, look, CSS[look.colour]) for arm, look in looks(evidence).items() if arm in evidence.arms
    ]
    if evidence.effects:
        alt = listed([f"{arm.name}: {change}" for arm, change in evidence.effects.items()])
        size = (4.8, 0.75 + 0.5 * len(evidence.effects))
        gallery.effects = picture(
            folder,
            f"{prefix}effects",
            f"Difference from SFT in {evidence.primary} with interval. {alt}",
            lambda axis: draw_effects(axis, evidence),
            size,
        )
    gallery.scores = list(score_pictures(evidence, folder, prefix))
    gallery.heats = list(heat_pictures(evidence, folder, prefix))
    gallery.curves = list(curve_pictures(evidence, folder, prefix))
    gallery.checkpoints = list(checkpoint_pictures(evidence, folder, prefix))
    gallery.pareto = pareto_picture(evidence, folder, prefix)
    gallery.confidence = [
        picture(
            folder,
            f"{prefix}confidence-{use.name}",
            f"Density of the negative log-likelihood of wrong answers to {use.name}, a curve for each arm and reference"
            " model.",
            lambda axis, use=use: draw_confidence(axis, evidence.results, use),
            (6.4, 3.8),
        )
        for use in confidence_tasks(evidence.results)
    ]
    return gallery


def _ordered(evidence: Evidence) -> list[MetricName]:
    """The metrics that a point has a number of, the primary one first."""
    names = [name for name in evidence.metrics if evidence.scores(name)]
    return sorted(names, key=lambda name: name != evidence.primary)


def score_pictures(evidence: Evidence, folder: Path, prefix: str) -> Iterator[Picture]:
    for name in _ordered(evidence)[:MOST]:
        means = [f"{arm.name} {found} over {found.n}" for arm in evidence.arms if (found := evidence.spread(arm, name))]
        alt = f"{name} by alpha, {direction(name)}; a dot for each run. Means: {listed(means)}"
        yield picture(folder, f"{prefix}scores-{name}", alt, lambda axis, name=name: draw_scores(axis, evidence, name))


def heat_pictures(evidence: Evidence, folder: Path, prefix: str) -> Iterator[Picture]:
    """One an arm, where there is more than one lr or batch."""
    found = {arm: cells(evidence, arm, evidence.primary) for arm in evidence.arms}
    values = [value for by_cell in found.values() for value in by_cell.values()]
    lrs, batches = {point.lr for point in evidence.points}, {point.batch for point in evidence.points}
    if not values or len(lrs) * len(batches) < 2:
        return
    limits, size = (min(values), max(values)), (1.3 + 0.75 * max(len(batches), 2), 1.1 + 0.5 * max(len(lrs), 2))
    for arm, by_cell in found.items():
        if by_cell:
            told = [f"lr {lr:g}, batch {batch}: {value:.2f}" for (lr, batch), value in by_cell.items()]
            alt = f"{evidence.primary} of {arm.name} by lr and batch, means over seeds. {listed(told)}"
            name = f"{prefix}heat-{evidence.primary}-{arm.name}"
            yield picture(
                folder, name, alt, lambda axis, arm=arm: draw_heat(axis, evidence, arm, evidence.primary, limits), size
            )


def curve_pictures(evidence: Evidence, folder: Path, prefix: str) -> Iterator[Picture]:
    curves = [curve for curve in evidence.results.curves.values() if curve]
    if not curves:
        return
    told = f"of {len(curves)} runs over the examples seen"
    yield picture(
        folder,
        f"{prefix}curves-training",
        f"Cross-entropy in training {told}.",
        lambda axis: draw_curves(axis, evidence, False),
        (4.7, 3.0),
    )
    if any("heldout_ce" in entry for curve in curves for entry in curve):
        last = [
            _last_heldout(evidence, arm_name)
            for arm_name in dict.fromkeys(arm_of(point).name for point in evidence.results.curves)
        ]
        alt = f"Cross-entropy on held-out rows {told}. Means of the last: {listed([each for each in last if each])}"
        yield picture(
            folder, f"{prefix}curves-heldout", alt, lambda axis: draw_curves(axis, evidence, True), (4.7, 3.0)
        )


def _last_heldout(evidence: Evidence, arm: str) -> str:
    found = []
    for point, curve in evidence.results.curves.items():
        held = [entry["heldout_ce"] for entry in curve if "heldout_ce" in entry]
        if arm_of(point).name == arm and held:
            found.append(held[-1])
    return f"{arm} {sum(found) / len(found):.3f}" if found else ""


def checkpoint_pictures(evidence: Evidence, folder: Path, prefix: str) -> Iterator[Picture]:
    """Where a point has more than one checkpoint, and not only those are scored that were chosen for being good."""
    of_points = [each for each in evidence.results.checkpoints if isinstance(each.subject, Point)]
    for name in _ordered(evidence)[:MOST_COURSES]:
        if evidence.grid.score.checkpoints.startswith("best") and any(name not in each.scores for each in of_points):
            continue
        course = courses(evidence, name)
        if any(len(values) > 1 for values in course.values()):
            told = [
                f"{arm.name} " + ", ".join(f"{sum(v) / len(v):.2f}" for v in values.values())
                for arm, values in course.items()
            ]
            alt = f"{name} over checkpoints, means over runs: {listed(told)}"
            yield picture(
                folder,
                f"{prefix}checkpoints-{name}",
                alt,
                lambda axis, name=name: draw_checkpoints(axis, evidence, name),
            )


def pareto_picture(evidence: Evidence, folder: Path, prefix: str) -> Picture | None:
    """Hallucination against ability, if the grid measures both; otherwise the primary metric against ability."""
    faithful, ability = evidence.faithful or evidence.primary, evidence.ability
    title = "accuracy in multiple choice, mean over tasks" if len(ability) > 1 else str(ability[0]) if ability else ""
    if (
        not ability
        or faithful in ability
        or not any(both(evidence, point, faithful, ability) for point in evidence.points)
    ):
        return None
    alt = f"{faithful} against {title}: a dot for each run, the means of arms large."
    return picture(
        folder, f"{prefix}pareto", alt, lambda axis: draw_pareto(axis, evidence, faithful, ability, title), (5.6, 3.9)
    )
