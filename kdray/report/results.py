"""A grid's results as far as the store has them: final scores and training curves."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdray.artifacts.curve import Curve, read_curve, read_growing_curve
from kdray.artifacts.scores import Score, read_factual, read_scores
from kdray.plan import Plan
from kdray.plan.inputs import RateInputs
from kdray.plan.prepared import prepared_notes
from kdray.plan.steps import Step, Subject
from kdray.report.chosen import Seen, choose
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.decodings import PLAIN, decoding_label
from kdray.spec.metric_names import MetricName, chosen_by_answers
from kdray.spec.metrics import metrics_of, scores_of
from kdray.spec.points import Point
from kdray.spec.sections.base import Use
from kdray.store import Artifact, Control, Store

RUNTIME = (
    "workers",
    "threads",
    "device",
    "micro_batch",
    "engine",
    "torch",
)  # what may differ between points of equal ids


@dataclass
class Checkpoint:
    """What was measured on one exported checkpoint or reference model."""

    subject: Subject
    position: float | None
    examples: int | None  # sequences seen in training
    scores: dict[MetricName, Score] = field(default_factory=dict)
    measured: dict[str, Artifact] = field(default_factory=dict)  # by task: the last measurement, with its rows
    rows: dict[MetricName, Path] = field(default_factory=dict)  # by score: the folder with the rows behind it
    answers: dict[MetricName, Path] = field(default_factory=dict)  # by score of answers: the folder that keeps them
    drifted: list[MetricName] = field(
        default_factory=list
    )  # factual rates whose lens tells less here than where it was trained


@dataclass(frozen=True)
class Results:
    """Everything known of a grid."""

    plan: Plan
    checkpoints: list[Checkpoint]
    curves: dict[Point, Curve]
    runtimes: dict[Point, dict[str, Any]] = field(default_factory=dict)  # how each finished point ran
    lens: dict[str, Any] | None = None  # the numbers of what trained the grid's lens, and its AUROC
    limits: list[str] = field(default_factory=list)  # what the limits of lengths took from the data, if that is much
    early: dict[Point, str] = field(default_factory=dict)  # why a search has stopped points before their end

    def of(self, subject: Subject) -> list[Checkpoint]:
        """A subject's checkpoints in the order of training."""
        found = [c for c in self.checkpoints if c.subject == subject]
        return sorted(found, key=lambda c: c.position or 0)

    def final(self, subject: Subject) -> Checkpoint | None:
        """The checkpoint that tables use: the last, or the best of all by what `report.checkpoint` says; None until it
        is scored.

        Of two that are equally good it is the later one.
        """
        found, rule = self.of(subject), self.plan.grid.report.checkpoint
        if isinstance(subject, Point):
            answers = {c.position: c.scores.get(chosen_by_answers()) for c in found}
            seen = {
                c.position: Seen(c.examples, score.value if (score := answers[c.position]) else None)
                for c in found
                if c.position is not None
            }
            at = choose(rule, self.plan.grid.train.total, seen, self.curves.get(subject, []))
            found = [c for c in found if c.position == at]
        return found[-1] if found and found[-1].scores else None


def collect(plan: Plan, store: Store) -> Results:
    """Read what the store has of `plan`.

    Raises:
        InputError: something of it is damaged.
    """
    checkpoints: dict[tuple[Subject, float | None], Checkpoint] = {}
    examples = {}
    for point in plan.points:
        for position, export in point.exports.items():
            artifact = export.id and store.get(export.key)
            examples[(point.point, position)] = artifact.facts["examples"] if artifact else None
    for score in plan.scores:
        where = (score.subject, score.position)
        checkpoint = checkpoints.setdefault(where, Checkpoint(*where, examples.get(where)))
        artifact = score.measure.id and store.get(score.measure.key)
        if not artifact:
            continue
        if score.decoding in ("", PLAIN):
            checkpoint.measured[score.task.name] = artifact
        if read_factual(artifact.path).get("drifted"):
            checkpoint.drifted.append(MetricName(score.task.name, "fr", score.decoding))
        answered = score.generate and score.generate.id and store.get(score.generate.key)
        for metric, found in read_scores(artifact.path).items():
            name = MetricName(score.task.name, metric, score.decoding)
            if (
                metric == "failed" and name in checkpoint.scores
            ):  # of several measurements of the same answers, the worst
                found = max(found, checkpoint.scores[name], key=lambda share: share.value)
            checkpoint.scores[name] = found
            checkpoint.rows[name] = artifact.path
            if answered:
                checkpoint.answers[name] = answered.path
    curves: dict[Point, Curve] = {}
    runtimes, early, control = {}, {}, Control(store.root)
    for point in plan.points:
        if artifact := point.train.id and store.get(point.train.key):
            runtimes[point.point] = {name: artifact.facts.get(name) for name in RUNTIME}
        curves[point.point] = curve_of(point.train, store) if point.train.id else []
        if why := point.train.id and not artifact and control.early(point.train.key.id):
            early[point.point] = why
    lenses = [score.measure.inputs.lens for score in plan.scores if isinstance(score.measure.inputs, RateInputs)]
    lens = lenses[0].id and store.get(lenses[0].key) if lenses else None
    facts = lens.facts if lens else None
    return Results(plan, list(checkpoints.values()), curves, runtimes, facts, prepared_notes(plan, store), early)


def curve_of(step: Step, store: Store) -> Curve:
    """What a point has logged: all of it, or of an unfinished one what the attempt has that got furthest.

    Raises:
        InputError: it is damaged.
    """
    made = store.get(step.key)
    if made is None:
        try:
            return read_growing_curve(store.folder(step.key))
        except FileNotFoundError:  # sealed, and its leftovers removed, while we read
            if (made := store.get(step.key)) is None:
                raise
    return read_curve(made)


def primary_metric(plan: Plan) -> MetricName:
    """The name of what the grid is about: `report.primary`, or the first task's first metric under the first decoding.

    It follows from the grid file alone, whatever is measured already. What lm-eval's own tasks measure is not known
    here: most have an accuracy.
    """
    if plan.grid.report.primary is not None:
        return MetricName.parse(plan.grid.report.primary)
    first = plan.grid.score.tasks[0].name
    asked = declared(declare.Task, first)
    decoding = next(map(decoding_label, plan.grid.score.ways_of(asked)), "")
    return MetricName(first, next(iter(asked.short), "acc"), decoding)


def is_shown(name: MetricName, plan: Plan) -> bool:
    """Whether tables have a column for a metric: all but what a metric of answers gives beside its first number."""
    beside = any(name.metric in scores_of(use)[1:] for use in taken_of(name, plan))
    return not beside or name.metric in declared(declare.Task, name.task).short


def taken_of(name: MetricName, plan: Plan) -> list[Use]:
    """The metrics that are taken of answers to a score's task; none where it is no task of answers."""
    if not isinstance(declared(declare.Task, name.task), declare.AnswerTask):
        return []
    tasks = (task for task in plan.grid.score.tasks if task.name == name.task)
    return [use for task in tasks for use in metrics_of(task, plan.grid.score.metrics)]
