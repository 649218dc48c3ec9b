"""Tables of means in the paper's form: rows are arms, cells mean ± sd over runs with their number, the best in bold.

The paper's own figures stand in the cells of a grid that trains one of its students.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kdray.report.arms import Arm, arm_of
from kdray.report.meanings import MEANINGS
from kdray.report.page.evidence import Evidence
from kdray.report.published import PAPER, published
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.decodings import PLAIN
from kdray.spec.metric_names import CALIBRATION, MetricName
from kdray.spec.refs import parse_reference

# a lens's AUROC is over windows, and the likelihood of wrong answers over these alone
OF_NO_ITEMS = (*CALIBRATION, "fr_auroc", "wrong_nll")
KINDS = {declare.AnswerTask: "Answers", declare.ChoiceTask: "Multiple choice"}


@dataclass(frozen=True)
class Column:
    """One metric of one task; `arrow` points to where better is."""

    metric: MetricName
    label: str
    arrow: str
    primary: bool


@dataclass(frozen=True)
class Cell:
    """`mean` and `sd` over `n` runs, as they were rounded; all empty where nothing is measured."""

    mean: str = ""
    sd: str = ""
    n: int = 0
    best: bool = False
    paper: str = ""


@dataclass(frozen=True)
class Line:
    """An arm's cells, or a reference model's."""

    label: str
    runs: str
    cells: list[Cell]
    reference: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table: its columns by task, and its lines."""

    title: str
    note: str
    groups: list[tuple[str, list[Column]]]
    lines: list[Line]

    @property
    def columns(self) -> list[Column]:
        return [column for _, columns in self.groups for column in columns]

    @property
    def meanings(self) -> list[tuple[str, str]]:
        """Its metrics in words, those that there are words for."""
        names = dict.fromkeys(column.metric.metric for column in self.columns)
        return [(name, MEANINGS[name]) for name in names if name in MEANINGS]


def sheets_of(evidence: Evidence) -> list[Sheet]:
    """The tables of a grid, that with the primary metric first; none where nothing is scored."""
    by_title: dict[str, list[MetricName]] = {}
    for name in evidence.metrics:
        kind = type(declared(declare.Task, name.task))
        by_title.setdefault(KINDS.get(kind, "Losses"), []).append(name)
    ordered = sorted(by_title.items(), key=lambda item: evidence.primary not in item[1])
    return [_sheet(evidence, title, names) for title, names in ordered]


def calibration_sheet(evidence: Evidence) -> Sheet | None:
    """Expected calibration errors and Brier scores."""
    return _sheet(evidence, "Calibration", evidence.calibration) if evidence.calibration else None


def _sheet(evidence: Evidence, title: str, names: Sequence[MetricName]) -> Sheet:
    groups: dict[str, list[Column]] = {}
    for name in names:
        groups.setdefault(name.task, []).append(_column(name, evidence))
    columns = [column.metric for group in groups.values() for column in group]
    paper = paper_figures(evidence)
    best = {name: _best(evidence, name) for name in columns}
    lines = []
    for arm in evidence.arms:
        cells = [_cell(evidence, arm, name, best[name], paper.get((arm, name), "")) for name in columns]
        points = [point for point in evidence.points if arm_of(point) == arm]
        lines.append(Line(arm.name, f"{sum(point in evidence.finals for point in points)}/{len(points)}", cells))
    for role, label in evidence.references.items():
        scores = [evidence.score(role, name) for name in columns]
        alone = not evidence.points
        cells = [
            Cell(f"{s.value:z.2f}", f"{s.stderr:.2f}" if alone else "", s.n if alone else 0) if s else Cell()
            for s in scores
        ]
        lines.append(Line(label, "", cells, reference=True))
    spread = "mean ± standard deviation over runs" if evidence.points else "value ± standard error over the examples"
    return Sheet(title, spread, list(groups.items()), lines)


def _column(name: MetricName, evidence: Evidence) -> Column:
    decoding = f" · {name.decoding}" if name.decoding not in ("", PLAIN) else ""
    return Column(name, f"{name.metric}{decoding}", "↓" if name.lower_is_better else "↑", name == evidence.primary)


def _best(evidence: Evidence, name: MetricName) -> str:
    """The best of the arms' means, as it is rounded: all that look the same are best.

    Empty where all do, or there is one alone.
    """
    found = [spread.mean for arm in evidence.arms if (spread := evidence.spread(arm, name))]
    if len({f"{mean:z.2f}" for mean in found}) < 2:
        return ""
    return f"{min(found) if name.lower_is_better else max(found):z.2f}"


def _cell(evidence: Evidence, arm: Arm, name: MetricName, best: str, paper: str) -> Cell:
    found = evidence.spread(arm, name)
    if not found:
        return Cell(paper=paper)
    mean = f"{found.mean:z.2f}"
    return Cell(
        mean, "" if found.sd is None or math.isnan(found.sd) else f"{found.sd:.2f}", found.n, mean == best, paper
    )


def paper_figures(evidence: Evidence) -> dict[tuple[Arm, MetricName], str]:
    """What the paper reports of the same arms and metrics, as mean ± sd; empty of a grid that is none of the
    paper's.
    """
    student = _student(evidence)
    if student not in PAPER:
        return {}
    family, labels = PAPER[student]
    found = {}
    for row in _rows(family):
        alpha, name = float(row["alpha"]), str(row["metric"])
        for arm in evidence.arms:
            same = (
                arm.alpha == alpha
                and arm.labels == (labels if alpha else "gold")
                and not arm.smoothing
                and arm.temperature == 1
                and arm.rows == "all"
                and not arm.aligned
            )
            for metric in evidence.metrics:
                if same and metric.written == name:
                    found[arm, metric] = f"{row['mean']:g} ± {row['sd']:g}"
    return found


def _rows(family: str) -> Iterator[dict[str, Any]]:
    for table in ("hallucination", "benchmarks"):
        yield from (row for row in published(table) if row["family"] == family)


def _student(evidence: Evidence) -> str:
    """The hub's name of the grid's student, if it is from there."""
    if not evidence.points:
        return ""
    reference = parse_reference(evidence.grid.student.model, "student.model")
    return reference.name if reference.scheme == "hf" else ""


def compared_on(evidence: Evidence) -> list[str]:
    """Of every task how many items are behind a score."""
    counts: dict[str, set[int]] = {}
    for final in evidence.finals.values():
        for name, score in final.scores.items():
            if name.metric not in OF_NO_ITEMS:
                counts.setdefault(name.task, set()).add(score.n)
    return [f"{task} ({_number(found)} items)" for task, found in counts.items()]


def _number(found: set[int]) -> str:
    return f"{max(found):,}" if len(found) == 1 else f"{min(found):,} to {max(found):,}"
