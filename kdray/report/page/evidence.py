"""What a grid's results say, as the page needs it: the only place that asks for verdicts, differences and final
scores.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cached_property

from kdray.artifacts.scores import Score
from kdray.plan.steps import Subject
from kdray.report.arms import Arm, arm_of, arms_of
from kdray.report.compared import COMPARED, COMPARED_NOTE, compared_rows
from kdray.report.results import Checkpoint, Results, primary_metric, taken_of
from kdray.report.statistics import Difference, Spread, spread
from kdray.report.table import calibration_of, metrics_of, reference_name
from kdray.report.verdict import Findings, findings, too_small, verdict
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.lens import finds_hallucinations
from kdray.spec.metric_names import MetricName
from kdray.spec.metrics import scores_of
from kdray.spec.points import Point


class Evidence:
    """A grid's results: arms in the order of tables, metrics with the primary one, and what is known of each."""

    compared_columns, compared_note = COMPARED, COMPARED_NOTE

    def __init__(self, results: Results) -> None:
        self.everything, self.results = results, only_numbers(results)
        self.plan, self.grid = results.plan, results.plan.grid
        self.points = [planned.point for planned in results.plan.points]
        self.arms = arms_of(self.points)
        self.primary = primary_metric(results.plan)
        self.metrics = metrics_of(self.results)
        self.calibration = calibration_of(self.results)

    @cached_property
    def finals(self) -> dict[Subject, Checkpoint]:
        """The checkpoint that tables use, of every point and reference model that has one."""
        found = {subject: self.results.final(subject) for subject in (*self.points, *self.plan.models)}
        return {subject: final for subject, final in found.items() if final}

    def scores(self, metric: MetricName) -> dict[Point, Score]:
        """The final scores of all points that have one."""
        return {point: score for point in self.points if (score := self.score(point, metric))}

    def score(self, subject: Subject, metric: MetricName) -> Score | None:
        """The final score of a point or reference model, if there is one."""
        final = self.finals.get(subject)
        return final.scores.get(metric) if final else None

    def values(self, arm: Arm, metric: MetricName) -> list[float]:
        """The final values of an arm's runs."""
        return [score.value for point, score in self.scores(metric).items() if arm_of(point) == arm]

    def spread(self, arm: Arm, metric: MetricName) -> Spread | None:
        values = self.values(arm, metric)
        return spread(values) if values else None

    @cached_property
    def references(self) -> dict[str, str]:
        """The names of models that are no points, by their roles: of those that are scored."""
        return {role: reference_name(role, self.plan) for role in self.plan.models if role in self.finals}

    @cached_property
    def sentences(self) -> list[str]:
        """The verdict."""
        return verdict(self.everything)

    @cached_property
    def found(self) -> Findings | None:
        """Every arm against SFT on the primary metric, as the verdict has it; None as long as nothing can be
        compared.
        """
        return findings(self.results) if self.points else None

    @cached_property
    def reason(self) -> str | None:
        """Why nothing can be concluded, if that is so."""
        if not self.points:
            return "models are scored here, and none is trained"
        if self.found:
            return too_small(self.found)
        if not self.scores(self.primary):
            return f"no point has a score of {self.primary} so far"
        return "there are no runs of SFT and of another arm to compare"

    @property
    def effects(self) -> dict[Arm, Difference]:
        """What tells each arm from SFT on the primary metric, with intervals that hold for all of them at once."""
        return self.found.arms if self.found else {}

    @property
    def best(self) -> Arm | None:
        """The arm with the best mean difference from SFT."""
        return self.found.best if self.found else None

    @cached_property
    def compared(self) -> list[tuple[str, ...]]:
        """Every arm against SFT on every headline metric, as rows under `COMPARED`."""
        return compared_rows(self.results) if self.points else []

    @property
    def sign(self) -> int:
        """1 where more of the primary metric is better, -1 where less is."""
        return -1 if self.primary.lower_is_better else 1

    @property
    def tone(self) -> str:
        """The verdict in a word or three."""
        if not self.finals:
            return "Nothing scored yet"
        if self.reason or self.best is None:
            return "No verdict"
        change = self.effects[self.best]
        if not change.significant:
            return "No difference shown"
        return "Better than SFT" if self.sign * change.mean > 0 else "Worse than SFT"

    @property
    def ability(self) -> list[MetricName]:
        """The accuracy of each multiple-choice task, length-normalised where there is such a one."""
        names = [name for name in self.metrics if isinstance(declared(declare.Task, name.task), declare.ChoiceTask)]
        chosen = {name.task: name for name in names if name.metric == "acc"}
        return list((chosen | {name.task: name for name in names if name.metric == "acc_norm"}).values())

    @property
    def faithful(self) -> MetricName | None:
        """The metric of hallucination: the primary one, if it is about an answer's source, or the first that is."""
        return next(
            (name for name in (self.primary, *self.metrics) if name in self.metrics and self._is_faithful(name)), None
        )

    def _is_faithful(self, name: MetricName) -> bool:
        firsts = {scores_of(use)[0] for use in taken_of(name, self.plan) if finds_hallucinations(use.name)}
        return name.metric == "fr" or name.metric in firsts


def only_numbers(results: Results) -> Results:
    """The same without scores that are no finite number, such as the perplexity of a model that has lost its mind."""
    return replace(results, checkpoints=[replace(each, scores=_finite(each.scores)) for each in results.checkpoints])


def _finite(scores: dict[MetricName, Score]) -> dict[MetricName, Score]:
    return {name: score for name, score in scores.items() if math.isfinite(score.value)}
