"""Commands that steer a run through its store, without one: what they write there, say and refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from kdray.plan import Plan
from kdray.store import Control, Locks, Store
from tests.conftest import Run
from tests.plan.conftest import seal


@pytest.fixture
def running(made: Plan, store: Store) -> Iterator[Locks]:
    """A run at work on the grid."""
    with Locks(beat=0.02) as locks, Control(store.root).announced("tiny", locks):
        yield locks


def test_points_stop_and_are_released(run: Run, made: Plan, store: Store) -> None:
    first, second = (point.train for point in made.points[:2])
    code, stdout, stderr = run("stop", "grid.yaml", first.slug, second.id)
    assert (code, stderr) == (0, "")
    assert stdout == (
        f"stopped: {first.slug}, {second.slug} (no run is at work, and the next leaves them out)\n"
        "`kdray release grid.yaml POINT...` lets them go on\n"
    )
    states = [point["state"] for point in json.loads(run("status", "grid.yaml", "--json")[1])["points"]]
    assert states == ["stopped", "stopped", "missing", "missing"]
    code, stdout, _ = run("release", "grid.yaml", second.slug)
    assert (code, stdout) == (0, f"released: {second.slug} (`kdray run grid.yaml` goes on)\n")
    control = Control(store.root)
    assert (control.is_stopped(first.key.id), control.is_stopped(second.key.id)) == (True, False)


def test_a_run_is_held_and_released(run: Run, running: Locks, store: Store) -> None:
    code, stdout, _ = run("hold", "grid.yaml")
    assert code == 0
    assert stdout.startswith("held: process ")
    assert Control(store.root).is_held(running.owner)
    assert "held: no new point begins before `kdray release grid.yaml`" in run("status", "grid.yaml")[1]
    assert run("release", "grid.yaml") == (0, "released: points begin again\n", "")
    assert not Control(store.root).is_held(running.owner)


def test_a_stop_is_said_to_be_soon_where_a_run_is_at_work(run: Run, running: Locks, made: Plan) -> None:
    slug = made.points[0].train.slug
    assert run("stop", "grid.yaml", slug)[1].startswith(f"stopped: {slug} (within seconds, after a step)\n")
    assert "(the run takes them up when its other points are through)" in run("release", "grid.yaml", slug)[1]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("stop grid.yaml lr0.0001-b2-a0-s1", "POINT: no point 'lr0.0001-b2-a0-s1'; did you mean 'lr0.0001-b2-a0-s0'?"),
        ("stop grid.yaml lr0.001-b2-a0-s0 lr0.1", "POINT: no point 'lr0.1'; "),
        ("stop grid.yaml lr0.0001", "POINT: 'lr0.0001' begins 2 points; say more: "),
        ("stop grid.yaml lr0.0001-b2-a0-s0", "POINT: lr0.0001-b2-a0-s0 is done; name points that are not"),
        ("logs grid.yaml nothing", "POINT: no point 'nothing'; "),
        ("hold grid.yaml", "GRID: no run of tiny is at work; `kdray run` it first, or `kdray stop` the points"),
        ("release grid.yaml", "GRID: no run of tiny is held; there is nothing to release"),
        ("release grid.yaml lr0.001-b2-a0-s0", "POINT: lr0.001-b2-a0-s0 is not stopped; name points that are"),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_writes_nothing(
    command: str, said: str, run: Run, made: Plan, store: Store
) -> None:
    seal(store, made.points[0].train)
    code, stdout, stderr = run(*command.split())
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert stderr.startswith(f"error {said}")
    assert not Control(store.root).folder.exists()


def test_without_a_hold_release_names_the_points_that_are_stopped(run: Run, made: Plan, store: Store) -> None:
    Control(store.root).stop(made.points[1].train.key.id)
    said = run("release", "grid.yaml")[2]
    assert said == f"error GRID: no run of tiny is held; name what is to go on: {made.points[1].train.slug}\n"
