"""A run that stands still says what it waits for, once."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from kdray.cli.progress import Terminal
from kdray.orchestration import watchdog as module
from kdray.orchestration.resources import Node, Resources
from kdray.orchestration.watchdog import Watchdog, awaited
from kdray.orchestration.work import Work
from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.store import Locks, Outer, Store
from tests.conftest import TinyGrid
from tests.plan.test_progress import train

Clock = Callable[[float], None]


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """`after(60)`: let so many seconds pass."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def dog(after: Clock, said: io.StringIO) -> Watchdog:
    return Watchdog(Terminal(Console(file=said, width=200)))


def barks(said: io.StringIO) -> list[str]:
    return [line for line in said.getvalue().splitlines() if line.startswith("nothing has moved")]


def test_it_barks_once_where_nothing_moves(dog: Watchdog, after: Clock, said: io.StringIO) -> None:
    with dog.bar("train", 8, "steps") as train, dog.bar("score", 0, "steps"):
        train.set(3)
        after(299)
        dog.look()
        train.set(3)  # looked at again, and no further
        after(1)
        for _ in range(3):
            dog.look()
            after(300)
    assert barks(said) == ["nothing has moved for 5 min: waiting for train (3/8 steps)"]


def test_it_barks_again_once_something_has_moved(dog: Watchdog, after: Clock, said: io.StringIO) -> None:
    with dog.bar("train", 8) as bar:
        after(300)
        dog.look()
        bar.advance()
        after(299)
        dog.look()
        dog.say("a line")
        after(299)
        dog.look()
        assert len(barks(said)) == 1
        after(1)
        dog.look()
    assert barks(said)[1:] == ["nothing has moved for 5 min: waiting for train (1/8)"]


def test_it_says_what_the_run_knows_of_its_waiting(dog: Watchdog, after: Clock, said: io.StringIO) -> None:
    dog.awaited = lambda: "1 GPU"
    after(300)
    dog.look()
    assert said.getvalue() == "nothing has moved for 5 min: waiting for 1 GPU\n"


def test_a_look_that_fails_holds_nothing_up(dog: Watchdog, after: Clock, said: io.StringIO) -> None:
    def broken() -> str:
        raise RuntimeError

    dog.awaited = broken
    after(300)
    dog.look()
    assert said.getvalue() == "nothing has moved for 5 min: waiting for Ray\n"


def test_it_looks_by_itself(said: io.StringIO) -> None:
    with Watchdog(Terminal(Console(file=said)), patience=0, tick=0.001) as dog:
        dog._thread.join(0.05)
    assert "nothing has moved" in said.getvalue()


def test_points_wait_for_room_or_their_release(tiny_grid: TinyGrid) -> None:
    grid = load_grid(tiny_grid())
    store = Store(grid.runtime.store)
    plan = make_plan(grid, Outer(store.root))
    with Locks() as locks, Terminal(Console(quiet=True)) as progress:
        work = Work(plan, store, Outer(store.root), locks, progress, Resources((Node(8, 4),), 2))

        def waits() -> str:
            return awaited(work, lambda: {"GPU": 1.0})

        assert waits() == "", "no point's turn has come"
        attempts = []
        for point in plan.points[:2]:
            attempts.append(store.begin(point.train.key, point.train.payload or {}))
            assert locks.try_acquire(attempts[-1].folder)
        assert waits() == "2 GPUs, of which 1 are free; see `ray status`"
        with work.control.announced("tiny", locks):
            (work.control.folder / f"hold-{locks.owner}").touch()
            assert waits() == "`kdray release`: the run is held"
        train(attempts[0], 1)
        assert waits() == "", "one trains, and the other is next"
