"""What the bars of jobs count, and what is said beside them."""

from __future__ import annotations

import dataclasses
import io
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kdray.artifacts.curve import append_step
from kdray.artifacts.notes import note_start, note_stop
from kdray.cli.progress import Terminal
from kdray.orchestration import watch as module
from kdray.orchestration.job import Job
from kdray.orchestration.resources import Node, Resources
from kdray.orchestration.watch import Counted, Told, job_steps, watch
from kdray.orchestration.work import Work
from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.store import Locks, Outer, Store
from kdray.train.settings import Settings
from tests.conftest import TinyGrid


def job(steps: float) -> Job:
    settings: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(Settings))
    unset: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(Job))
    return Job(**unset | {"settings": Settings(**settings | {"unit": "steps", "length": steps})})


def test_the_steps_of_a_job_are_those_that_it_is_given() -> None:
    assert job_steps(job(40.0)) == 40


def test_a_curve_is_read_again_only_once_it_has_grown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    count = module.count_steps
    monkeypatch.setattr(module, "count_steps", lambda folder: read.append(folder) or count(folder))
    steps = Counted()
    assert steps(tmp_path) == 0
    for counted in (1, 2):
        append_step(tmp_path, {"step": counted})
        assert [steps(tmp_path), steps(tmp_path)] == [counted, counted]
        assert len(read) == counted


def test_what_was_asked_of_a_run_is_said_once(tiny_grid: TinyGrid) -> None:
    grid = load_grid(tiny_grid())
    store, said = Store(grid.runtime.store), io.StringIO()
    plan = make_plan(grid, Outer(store.root))
    first, second = (point.train for point in plan.points[:2])
    with Locks() as locks, Terminal(Console(file=said, width=200)) as progress:
        work = Work(plan, store, Outer(store.root), locks, progress, Resources((Node(1, 0),), 1))
        attempts = [store.begin(step.key, step.payload or {}) for step in (first, second)]
        hold = work.control.folder / f"hold-{locks.owner}"
        told = Told([dataclasses.replace(job(4), attempt=attempt) for attempt in attempts], work)
        told.tell()
        for attempt in attempts:
            note_start(attempt.path, {"padded": "BloomModel takes no packed rows"})
            told.tell()
        hold.parent.mkdir(parents=True)
        hold.touch()
        note_stop(attempts[0].path, 0)
        for _ in range(2):
            told.tell()
        hold.unlink()
        work.control.stop(second.key.id, early="held-out loss 3.2")
        note_stop(attempts[1].path, 4)
        told.tell()
    assert said.getvalue().splitlines() == [
        "padded: BloomModel takes no packed rows",
        "held tiny: no new point begins",
        f"stopped train {first.slug} before it began",
        "released tiny",
        f"stopped early train {second.slug} at step 4: held-out loss 3.2",
    ]


def test_errors_while_steps_are_shown_are_one_line_and_it_looks_again(
    tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "TICK", 0.01)
    grid, said = load_grid(tiny_grid()), io.StringIO()
    store = Store(grid.runtime.store)
    plan = make_plan(grid, Outer(store.root))
    point = plan.points[0].train
    with Locks() as locks, Terminal(Console(file=said, width=400)) as progress:
        work = Work(plan, store, Outer(store.root), locks, progress, Resources((Node(1, 0),), 1))
        looks: list[bool] = []

        def after() -> None:
            looks.append(len(looks) >= 2)
            if not looks[-1]:
                raise ZeroDivisionError("division by zero")

        work.after = after
        attempt = store.begin(point.key, point.payload or {})
        with watch("train", [dataclasses.replace(job(4), attempt=attempt)], work):
            deadline = time.monotonic() + 30
            while not any(looks):
                assert time.monotonic() < deadline
                time.sleep(0.01)
    [kept] = store.root.glob("errors/train-*.txt")
    line = (
        f"steps could not be shown, all else goes on: ZeroDivisionError: division by zero (the traceback is in {kept})"
    )
    assert said.getvalue().splitlines().count(line) == 1
    assert capsys.readouterr() == ("", ""), "no traceback of a thread"
