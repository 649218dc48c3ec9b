"""The table of a grid: one row an arm (SFT first), then the reference models; mean and spread over lr, batch, seed."""

from __future__ import annotations

from dataclasses import dataclass

from kdray.report.arms import arm_of, arms_of
from kdray.report.results import Results
from kdray.report.statistics import final_scores, spread


def reference_name(role: str) -> str:
    """What the tables call a model that is no point."""
    return {"student": "untrained student", "teacher": "teacher"}.get(role, f"teacher {role}")


@dataclass(frozen=True)
class Row:
    """A row's label, how many of its runs are scored, and its cells by metric."""

    label: str
    runs: str
    cells: dict[str, str]
    reference: bool = False


def metrics_of(results: Results) -> list[str]:
    """All metrics that anything has a score for, in the order of the grid's tasks."""
    names: dict[str, None] = {}
    for checkpoint in results.checkpoints:
        names |= dict.fromkeys(checkpoint.scores)
    return [name for name in names if not (name.partition(".")[0].endswith("_empty") and _all_zero(results, name))]


def rows_of(results: Results) -> list[Row]:
    """The table's rows: the arms, SFT first, then the references."""
    metrics, rows, every = metrics_of(results), [], [point.point for point in results.plan.points]
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
            cells = {m: f"{final.scores[m].value:z.2f}" if m in final.scores else "-" for m in metrics}
            rows.append(Row(reference_name(role), "", cells, reference=True))
    return rows


def _all_zero(results: Results, metric: str) -> bool:
    return all(c.scores[metric].value == 0 for c in results.checkpoints if metric in c.scores)
