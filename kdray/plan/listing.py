"""What `kdray plan --json` and `kdray status --json` print."""

from __future__ import annotations

from collections import Counter
from typing import Any

from kdray.plan.sizes import size_of_labels, training_rows
from kdray.plan.steps import Plan, Step
from kdray.spec.uses import entries_by_field
from kdray.store import Store


def listed_plan(plan: Plan, store: Store) -> dict[str, Any]:
    """Every step and point with id, state and inputs; a `soften` step with the bytes of its soft labels, where they are
    known.

    `distributions` are those that give components of the grid which are not kdray's own, with their versions.
    """
    steps = []
    for step in plan.steps():
        size = size_of_labels(step, store)
        steps.append({"kind": step.kind, **_listed(step, store), **({"bytes": size.total} if size else {})})
    points = [{**vars(point.point), **_listed(point.train, store)} for point in plan.points]
    others = {entry.distribution.name: entry.distribution.version for entry in entries_by_field(plan.grid).values()}
    known = {
        "grid": plan.grid.name,
        "store": str(store.root),
        "distributions": others,
        "training_rows": training_rows(plan, store),
    }
    return known | {"steps": steps, "points": points}


def listed_status(plan: Plan, store: Store) -> dict[str, Any]:
    """How many steps of each kind are in each state, and every point's state."""
    counts: dict[str, Counter[str]] = {}
    for step in plan.steps():
        counts.setdefault(step.kind, Counter())[step.state(store)] += 1
    points = [
        {"slug": point.train.slug, "id": point.train.id, "state": point.train.state(store)} for point in plan.points
    ]
    return {"steps": counts, "points": points}


def _listed(step: Step, store: Store) -> dict[str, Any]:
    inputs = {name: needed.id for name, needed in step.inputs.named.items()}
    return {"slug": step.slug, "id": step.id, "state": step.state(store), "inputs": inputs}
