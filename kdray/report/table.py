"""The table of a grid: one row an arm (SFT first), then the reference models; mean and spread over lr, batch, seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdray.artifacts.scores import Score
from kdray.plan import Plan
from kdray.report.arms import arm_of, arms_of
from kdray.report.results import Results, is_shown
from kdray.report.statistics import final_scores, spread
from kdray.spec.metric_names import CALIBRATION, COUNTS, MetricName


def reference_name(role: str, plan: Plan) -> str:
    """What the tables call a model that is no point; where there are none, models have names of their own."""
    if not plan.points:
        return role
    return {"student": "untrained student", "teacher": "teacher"}.get(role, f"teacher {role}")


@dataclass(frozen=True)
class Row:
    """A row's label, how many of its runs are scored, and its cells by metric."""

    label: str
    runs: str
    cells: Mapping[MetricName, str]
    reference: bool = False

    @property
    def texts(self) -> list[str]:
        """The row as it is shown, a text for each of `headings`."""
        return [self.label, self.runs, *self.cells.values()]


def headings(metrics: Sequence[MetricName]) -> list[str]:
    """What stands above the columns of rows with these metrics: an arm's name has nothing there."""
    return ["", "runs", *metrics]


def metrics_of(results: Results) -> list[MetricName]:
    """The metrics that tables show and anything has a score for, in the order of the grid's tasks; without those of
    calibration.
    """
    names = [name for name in _measured(results) if name.metric not in CALIBRATION and is_shown(name, results.plan)]
    return [name for name in names if not (name.metric in COUNTS and _all_zero(results, name))]


def calibration_of(results: Results) -> list[MetricName]:
    """The metrics of calibration, which have a table of their own."""
    return [name for name in _measured(results) if name.metric in CALIBRATION]


def _measured(results: Results) -> list[MetricName]:
    return list(dict.fromkeys(name for checkpoint in results.checkpoints for name in checkpoint.scores))


def rows_of(results: Results, metrics: list[MetricName] | None = None) -> list[Row]:
    """The table's rows: the arms, SFT first, then the references."""
    metrics = metrics_of(results) if metrics is None else metrics
    rows, every = [], [point.point for point in results.plan.points]
    for arm in arms_of(every):
        points = [point for point in every if arm_of(point) == arm]
        cells = {}
        for metric in metrics:
            scores = final_scores(results, metric)
            values = [scores[point].value for point in points if point in scores]
            cells[metric] = str(spread(values)) if values else "-"
        scored = sum(1 for point in points if (final := results.final(point)) and final.scores)
        rows.append(Row(arm.name, f"{scored}/{len(points)}", cells))
    for role in results.plan.models:
        final = results.final(role)
        if final:
            cells = {m: _cell(final.scores[m], alone=not every) if m in final.scores else "-" for m in metrics}
            rows.append(Row(reference_name(role, results.plan), "", cells, reference=True))
    return rows


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    cells = [[" ".join(cell.split()).replace("|", r"\|") for cell in row] for row in (header, *rows)]
    return [f"| {' | '.join(row)} |" for row in (cells[0], ["---"] * len(header), *cells[1:])]


def _cell(score: Score, alone: bool) -> str:
    """A model's value: beside arms, whose spread is over runs, without its standard error over examples."""
    return f"{score.value:z.2f}" + (f" ± {score.stderr:.2f}" if alone else "")


def _all_zero(results: Results, metric: MetricName) -> bool:
    return all(c.scores[metric].value == 0 for c in results.checkpoints if metric in c.scores)
