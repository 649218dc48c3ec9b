"""Steering a run that is at work, from any machine that sees its store: points stop, no new one begins, both go on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdray.cli.shared import GridFile, plan_of, say
from kdray.spec import InputError

if TYPE_CHECKING:
    from kdray.plan import Plan, PointPlan
    from kdray.store import Control, Store

NAMED = "its name or id as `kdray plan` prints it, or the beginning of one"
Points = Annotated[list[str], typer.Argument(metavar="POINT", help=f"points, each by {NAMED}")]


def stop(grid: GridFile, points: Points) -> None:
    """Let points leave off: each writes a checkpoint after its step and ends, all others go on.

    They stay so in every run, with what needs them, until `kdray release GRID POINT...`.
    Then they go on from their checkpoints.
    """
    plan, store, control, found = _found(grid, points)
    if done := [point.train.slug for point in found if store.get(point.train.key)]:
        raise InputError("POINT", f"{done[0]} is done", "name points that are not")
    for point in found:
        control.stop(point.train.key.id)
    working = control.runs(plan.grid.name)
    when = "within seconds, after a step" if working else "no run is at work, and the next leaves them out"
    say(f"stopped: {_names(found)} ({when})\n`kdray release {grid} POINT...` lets them go on")


def hold(grid: GridFile) -> None:
    """Let the run of a grid begin no new point: those that train go on, and scoring does.

    A hold is of the run that is at work: it ends with it, or by `kdray release GRID`.
    """
    plan, _, control = _opened(grid)
    held = control.hold(plan.grid.name)
    if not held:
        raise InputError(
            "GRID", f"no run of {plan.grid.name} is at work", "`kdray run` it first, or `kdray stop` the points"
        )
    say(f"held: {', '.join(map(str, held))} begins no new point before `kdray release {grid}`")


def release(
    grid: GridFile,
    points: Annotated[
        list[str] | None, typer.Argument(metavar="POINT", help="points that were stopped; without one the hold")
    ] = None,
) -> None:
    """End what `kdray stop` or `kdray hold` has asked for: of the points that are named, or of the whole run."""
    if not points:
        plan, _, control = _opened(grid)
        if control.unhold(plan.grid.name):
            say("released: points begin again")
            return
        stopped = [point.train.slug for point in plan.points if point.train.id and control.is_stopped(point.train.id)]
        allowed = f"name what is to go on: {', '.join(stopped)}" if stopped else "there is nothing to release"
        raise InputError("GRID", f"no run of {plan.grid.name} is held", allowed)
    plan, _, control, found = _found(grid, points)
    if going := [point.train.slug for point in found if not control.is_stopped(point.train.key.id)]:
        raise InputError("POINT", f"{going[0]} is not stopped", "name points that are")
    control.unstop(point.train.key.id for point in found)
    working = control.runs(plan.grid.name)
    when = "the run takes them up when its other points are through" if working else f"`kdray run {grid}` goes on"
    say(f"released: {_names(found)} ({when})")


def _opened(grid: Path) -> tuple[Plan, Store, Control]:
    from kdray.store import Control

    plan, store = plan_of(grid)
    return plan, store, Control(store.root)


def _found(grid: Path, names: list[str]) -> tuple[Plan, Store, Control, list[PointPlan]]:
    from kdray.plan.progress import find_points

    plan, store, control = _opened(grid)
    return plan, store, control, find_points(plan, names)


def _names(points: list[PointPlan]) -> str:
    return ", ".join(point.train.slug for point in points)
