"""Which checkpoint of a point counts: for the tables and, where `score.checkpoints` leaves it to training, for scoring.

A plan has the scores of all checkpoints that may be chosen, under the ids that they have where all are scored. Which
of them are made is known once the point has trained (`best_heldout`), or its answers to the held-out rows at every
checkpoint are scored (`best_answers`); until then its last checkpoint stands for the one to be chosen. The choice
follows from finished artifacts alone, so that it is the same in every run, and is kept nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from kdray.artifacts.curve import Curve, read_curve
from kdray.plan import Plan, Step
from kdray.plan.inputs import AnswersInputs
from kdray.plan.steps import ScoreStep
from kdray.spec.metric_names import chosen_by_answers
from kdray.spec.metrics import scores_of
from kdray.spec.points import Point
from kdray.spec.sections.base import Use
from kdray.store import Store


@dataclass(frozen=True)
class Seen:
    """What a choice knows of a checkpoint: sequences seen in training, the score of its answers to held-out rows."""

    examples: int | None = None
    answers: float | None = None


def choose(rule: str, total: float, checkpoints: Mapping[float, Seen], curve: Curve) -> float | None:
    """The position of one of a point's `checkpoints`, by `report.checkpoint`; None until all is known that it goes by.

    `total` is the length of training. Of two that are equally good it is the later one.
    """
    if rule == "last":
        return total
    if rule == "best_answers":
        worth: dict[float, float | None] = {at: seen.answers for at, seen in checkpoints.items()}
    else:
        losses = {entry["examples"]: entry["heldout_ce"] for entry in curve if "heldout_ce" in entry}
        held = {
            at: losses.get(seen.examples) if seen.examples is not None else None for at, seen in checkpoints.items()
        }
        worth = {at: None if loss is None else -loss if math.isfinite(loss) else -math.inf for at, loss in held.items()}
    known = {at: value for at, value in worth.items() if value is not None}
    return max(sorted(known, reverse=True), key=lambda at: known[at]) if known and len(known) == len(worth) else None


class Choices:
    """The choices of a plan, each once all is there that it goes by."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self._planned = {each.point: each for each in plan.points}
        self._made: dict[Point, float] = {}
        self.choosing: dict[Point, list[ScoreStep]] = {}  # the measurements that a choice goes by
        if plan.points and plan.grid.report.checkpoint == "best_answers":
            for score in filter(_chooses, plan.scores):
                assert isinstance(score.subject, Point)
                self.choosing.setdefault(score.subject, []).append(score)
        self._open: dict[Hashable, tuple[Point, float]] = {}  # steps that wait for a choice, by their marks
        if plan.points and plan.grid.score.checkpoints.startswith("best"):
            self._open = self._waiting()

    def of(self, point: Point) -> float | None:
        """The position of the point's chosen checkpoint; None until it is known."""
        if point not in self._made and (at := self._chosen(point)) is not None:
            self._made[point] = at
        return self._made.get(point)

    def before(self, step: Step) -> Sequence[Step]:
        """The steps by which it is found out whether this one is wanted; none once that is known."""
        if step.mark not in self._open or self.of(point := self._open[step.mark][0]) is not None:
            return ()
        return [self._planned[point].train, *(score.measure for score in self.choosing.get(point, []))]

    def wants(self, step: Step) -> bool:
        """Whether the step is to be made: it is of the chosen checkpoint or, before the choice, stands for it."""
        if step.mark not in self._open:
            return True
        point, position = self._open[step.mark]
        chosen = self.of(point)
        return position == (self.plan.grid.train.total if chosen is None else chosen)

    def narrowed(self) -> Plan:
        """The plan with the scores that are wanted, as far as it is known."""
        return replace(self.plan, scores=[score for score in self.plan.scores if self.wants(score.measure)])

    def _chosen(self, point: Point) -> float | None:
        grid, planned = self.plan.grid, self._planned[point]
        rule, total = grid.report.checkpoint, grid.train.total
        if rule == "last":
            return total
        trained = self.store.get(planned.train.key) if planned.train.id else None
        if trained is None:
            return None
        exports = {at: self.store.get(step.key) for at, step in planned.exports.items()}
        seen = {at: Seen(made.facts["examples"] if made else None) for at, made in exports.items()}
        from kdray.artifacts.scores import read_scores  # loads pyarrow, which looking at a grid does without

        for score in self.choosing.get(point, []):
            if (measured := self.store.get(score.measure.key)) is None:
                return None
            if score.position is not None:
                found = read_scores(measured.path).get(chosen_by_answers().metric)
                seen[score.position] = replace(seen[score.position], answers=found and found.value)
        return choose(rule, total, seen, read_curve(trained) if rule == "best_heldout" else [])

    def _waiting(self) -> dict[Hashable, tuple[Point, float]]:
        """The steps that are made of a chosen checkpoint alone."""
        found: dict[Hashable, tuple[Point, float]] = {}
        always: set[Hashable] = set()
        choosing = {score.measure.mark for scores in self.choosing.values() for score in scores}
        for score in self.plan.scores:
            if not isinstance(score.subject, Point) or score.position is None:
                continue
            if score.measure.mark in choosing:
                always |= {step.mark for step in steps_of(score)}
            else:
                found |= {step.mark: (score.subject, score.position) for step in steps_of(score)}
        return {mark: where for mark, where in found.items() if mark not in always}


def steps_of(score: ScoreStep) -> list[Step]:
    """The steps that a score is made by: its answers, more of them drawn for a metric, and the measurement."""
    drawn = score.measure.inputs.samples if isinstance(score.measure.inputs, AnswersInputs) else ()
    return [*([score.generate] if score.generate else []), *drawn, score.measure]


def _chooses(score: ScoreStep) -> bool:
    """Whether a score of a checkpoint is what `best_answers` goes by."""
    by = chosen_by_answers()
    if not isinstance(score.subject, Point) or not isinstance(score.measure.inputs, AnswersInputs):
        return False
    if score.task.name != by.task or score.decoding != by.decoding:
        return False
    metrics = score.measure.params["metrics"] if score.measure.payload else []
    return any(by.metric in scores_of(Use(name=metric["name"])) for metric in metrics)
