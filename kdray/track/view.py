"""The charts that a grid's experiment page opens with, shipped as a shared view.

MLflow's page reads a shared view from the experiment tag `mlflow.sharedViewState.<key>`, as JSON of the page's
own state. That state is not a documented interface: a newer MLflow may show its own charts instead.
"""

from __future__ import annotations

import json
from typing import Any

from kdray.plan import Plan
from kdray.report.results import primary_metric
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.lens import rated_by_lens
from kdray.spec.metric_names import MetricName

VIEW_KEY = "kdray"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"
SECTION = "kdray-grid"
BARS = 12  # final metrics with a chart of their own; a tag holds at most 20,000 characters


def final_metrics(plan: Plan) -> list[MetricName]:
    """The names of the metrics that the grid's tasks declare, the primary one first."""
    names: list[MetricName] = []
    for use in plan.grid.score.tasks:  # what lm-eval's own tasks measure is not known here: most have an accuracy
        names += [MetricName(use.name, metric) for metric in declared(declare.Task, use.name).short or ["acc"]]
        names += [MetricName(use.name, "fr")] if plan.grid.lens and rated_by_lens(use) else []
    primary = primary_metric(plan)
    return [primary, *(name for name in names if name != primary)]


def shared_view(plan: Plan) -> str:
    """The JSON of the page's state: how the primary metric follows from the axes, then every final metric."""
    metrics = final_metrics(plan)
    primary = metrics[0]
    labels = ["labels"] if any(point.point.labels != "gold" for point in plan.points) else []
    charts: list[dict[str, Any]] = [
        {
            "type": "PARALLEL",
            "selectedParams": ["lr", "batch", "alpha", *labels],
            "selectedMetrics": [primary],
            "showAllRuns": True,
        },
        {
            "type": "SCATTER",
            "xaxis": {"key": "alpha", "type": "PARAM"},
            "yaxis": {"key": primary, "type": "METRIC"},
            "runsCountToCompare": 100,
        },
    ]
    charts += [
        {"type": "BAR", "displayName": name, "metricKey": name, "runsCountToCompare": 100} for name in metrics[:BARS]
    ]
    for number, chart in enumerate(charts):
        chart |= {"uuid": f"kdray-{number}", "metricSectionId": SECTION, "deleted": False, "isGenerated": False}
    sections = [{"uuid": SECTION, "name": plan.grid.name, "columns": 2, "display": True, "isReordered": True}]
    # The page adds a chart for every other metric, to the section that is called as the part before the slash.
    sections += [
        {"uuid": f"kdray-{name}", "name": name, "display": True, "isReordered": False} for name in ("ckpt", "train")
    ]
    state = {
        "searchFilter": "tags.`kdray.in_grid` = 'true'",
        "orderByKey": f"metrics.`{primary}`",
        "orderByAsc": primary.lower_is_better,
        "selectedColumns": [f"params.`{axis}`" for axis in ("alpha", "lr", "batch", "seed", *labels)]
        + [f"metrics.`{m}`" for m in metrics],
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
        "isAccordionReordered": True,  # else the page sorts its sections by name
        "compareRunSections": sections,
        "compareRunCharts": charts,
    }
    return json.dumps(state, separators=(",", ":"))
