"""What `kdray plan --json` and `kdray status --json` print."""

from __future__ import annotations

from collections import Counter
from typing import Any

from kdray.plan.inputs import TrainInputs
from kdray.plan.progress import training_status
from kdray.plan.sizes import size_of_labels, training_rows
from kdray.plan.steps import Plan, Step, reading
from kdray.spec.uses import entries_by_field
from kdray.store import Control, Store


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
    """The runs at work, how many steps of each kind are in each state and for which kinds the others wait, the running
    steps that are no points, and how far every point is.
    """
    control = Control(store.root)
    runs = [{**vars(run), "held": control.is_held(run.owner)} for run in control.runs(plan.grid.name)]
    counts: dict[str, Counter[str]] = {}
    waits: dict[str, Counter[str]] = {}
    running = []
    states = {step.mark: step.state(store) for step in plan.steps()}
    for step in plan.steps():
        state = states[step.mark]
        counts.setdefault(step.kind, Counter())[state] += 1
        if state == "running" and step.kind != "train":
            running.append(_running(step, store))
        if state == "missing":
            needed = {needed.kind for needed in step.inputs.steps if states[needed.mark] != "done"}
            waits.setdefault(step.kind, Counter()).update(needed)
    points = [vars(training_status(point.train, store)) for point in plan.points]
    return {"runs": runs, "steps": counts, "waits": waits, "running": running, "points": points}


def _running(step: Step, store: Store) -> dict[str, Any]:
    """A step that a run has in hand, and of one that trains how far it is."""
    shown: dict[str, Any] = {"kind": step.kind, "slug": step.slug, "id": step.id}
    for trained in reading([step], TrainInputs):
        status = training_status(trained, store)
        shown |= {"step": status.step, "total": status.total}
    return shown


def _listed(step: Step, store: Store) -> dict[str, Any]:
    inputs = {name: needed.id for name, needed in step.inputs.named.items()}
    return {"slug": step.slug, "id": step.id, "state": step.state(store), "inputs": inputs}
