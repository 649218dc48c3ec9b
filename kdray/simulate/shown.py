"""A simulated run as `kdray simulate` prints it, and what would make better use of the cluster."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from kdray.cost.cards import Card
from kdray.cost.shown import estimates, scoring_share
from kdray.orchestration.resources import Resources
from kdray.plan.steps import Plan
from kdray.simulate.given import Losses, resources_of
from kdray.simulate.run import (
    ANSWERS,
    BATCH,
    CHECKPOINTS,
    LARGER,
    LOST,
    POINTS_TAIL,
    REDONE,
    SCORING_TAIL,
    Outcome,
    simulate,
)
from kdray.simulate.todo import todo_of
from kdray.spec.errors import InputError
from kdray.store import Outer, Store

POOR = 0.9  # utilisation below which something is to be said of it
REMEDIES = {
    BATCH: "runtime.workers: no more than the smallest batch",
    ANSWERS: "fewer align.answers, or a larger score.batch",
    CHECKPOINTS: "a smaller runtime.beside, or more of train.keep",
    POINTS_TAIL: "fewer nodes, or more points in one grid",
    SCORING_TAIL: "fewer nodes, or a smaller score.batch: batches are what is dealt out",
    LARGER: "nodes with more GPUs, score.dtype: bfloat16, or score.references without the largest teacher",
    LOST: "nodes that are lost less often",
    REDONE: "a smaller runtime.checkpoint_minutes",
}


def simulated(
    plan: Plan, store: Store, outer: Outer, card: Card, nodes: int, gpus: int, losses: Losses | None, rows: int | None
) -> tuple[Outcome, list[str]]:
    """What a run comes to, and what takes time and is not counted.

    Raises:
        InputError: the cluster is too small, something is not known that a price takes, or nothing is left to be done.
    """
    resources: Resources = resources_of(plan.grid.runtime, nodes, gpus, card)
    found = estimates(plan, store, outer, [card], rows, resources.gpus)
    if not isinstance(found, dict):
        field, _, reason = found[0].partition(": ")
        raise InputError(field, reason, "without it there is no price, and nothing to simulate")
    price = found[card.name]
    resources = replace(resources, share=scoring_share(price), per_gpu=price.per_gpu)
    todo = todo_of(plan, store, price, resources)
    if not (todo.points or todo.aligned or todo.scores):
        raise InputError(plan.grid.name, "nothing is left of it to train or score", "simulate a grid before it runs")
    return simulate(todo, resources, losses), price.left_out


def listed(found: Outcome, card: Card) -> dict[str, Any]:
    """For a program: hours, and GPU-hours by what they go into."""
    return {
        "card": card.name,
        "gpus": found.gpus,
        "points_beside": found.points_beside,
        "makespan_h": found.makespan,
        "first_point_h": found.first_point,
        "utilisation": found.utilisation,
        "busy_h": dict(found.busy),
        "idle_h": dict(found.idle),
        "losses": found.losses,
        "restarts": found.restarts,
        "redone_h": found.idle[REDONE],
    }


def lines(found: Outcome, card: Card, losses: Losses | None) -> Iterator[str]:
    """For a reader."""
    yield (
        f"{found.makespan:,.1f} hours on {found.gpus} {card.name}, the first point after {found.first_point:,.1f}; "
        f"{found.points_beside} points at once while others wait"
    )
    yield f"utilisation {found.utilisation:.1%}, from the first point to the last score"
    yield f"busy  {_hours(found.busy)} GPU-hours"
    yield f"idle  {_hours(found.idle)} GPU-hours"
    if losses:
        yield (
            f"lost  {found.losses} nodes and {found.restarts} points on them: {found.idle[REDONE]:,.1f} GPU-hours done "
            f"again, {found.idle[LOST]:,.1f} waiting for nodes, places and processes"
        )
    if advice := advice_for(found):
        yield advice


def advice_for(found: Outcome) -> str | None:
    """What to change where the cluster is badly used after the first point, or much before it; None where it is well
    used.
    """
    before = sum(found.before.values())
    available = found.gpus * found.makespan
    if before > (1 - POOR) * available:
        cause, hours = max(found.before.items(), key=lambda each: each[1])
        return (
            f"change  {cause} takes {hours:,.1f} GPU-hours of others: make it on fewer nodes first, the same command"
            " goes on with more"
        )
    after = {cause: hours - found.before.get(cause, 0.0) for cause, hours in found.idle.items()}
    if found.utilisation >= POOR or not after or not math.isfinite(found.utilisation):
        return None
    cause, hours = max(after.items(), key=lambda each: each[1])
    return f"change  {cause}, {hours:,.1f} GPU-hours: {REMEDIES[cause]}" if cause in REMEDIES else None


def _hours(by: Mapping[str, float]) -> str:
    parts = [f"{what} {hours:,.1f}" for what, hours in sorted(by.items(), key=lambda each: -each[1]) if hours >= 0.05]
    return f"{sum(by.values()):,.1f}" + (f" ({', '.join(parts)})" if parts else "")
