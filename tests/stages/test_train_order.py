"""What is given to Tune, in which order, and which points begin."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from kdray.artifacts.curve import write_curve
from kdray.artifacts.notes import stopped_at
from kdray.cli.progress import Terminal
from kdray.orchestration.job import Job
from kdray.orchestration.resources import Node, Resources
from kdray.orchestration.work import Work
from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.stages import train
from kdray.stages.train import in_order
from kdray.store import Attempt, Control, Key, Locks, Outer, Store
from kdray.train.settings import Settings
from tests.conftest import TinyGrid


def job(name: str, steps: float) -> Job:
    settings: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(Settings))
    unset: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(Job))
    attempt = Attempt(Key("train", name, f"id of {name}"), Path(name), "attempt-001")
    return Job(**unset | {"settings": Settings(**settings | {"unit": "steps", "length": steps}), "attempt": attempt})


def test_the_dearest_point_is_first_and_without_a_price_that_with_the_most_steps() -> None:
    jobs = {name: job(name, steps) for name, steps in (("few steps", 3.0), ("many steps", 40.0), ("like few", 3.0))}
    assert list(in_order(jobs, {})) == ["many steps", "few steps", "like few"]
    prices = {"id of few steps": 1.0, "id of many steps": 2.0, "id of like few": 5.0}
    assert list(in_order(jobs, prices)) == ["like few", "many steps", "few steps"]
    assert list(in_order(jobs, {"id of like few": 5.0})) == ["many steps", "few steps", "like few"], (
        "one price of three"
    )


def test_what_has_priority_is_first_and_of_that_the_dearest() -> None:
    jobs = {name: job(name, steps) for name, steps in (("few steps", 3.0), ("many steps", 40.0), ("most", 50.0))}
    ranks = {"few steps": 0, "many steps": 0, "most": 1}
    assert list(in_order(jobs, {}, ranks)) == ["many steps", "few steps", "most"]


@pytest.fixture
def claimed(tmp_path: Path) -> Job:
    """The job of a point that is a part of the run `driver`."""
    attempt = Store(tmp_path).begin(Key("train", "point", "0123456789ab"), {})
    return dataclasses.replace(job("point", 3), store=tmp_path, attempt=attempt, driver="driver")


def test_the_time_of_a_point_is_that_of_its_training(claimed: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts are begun when a run claims its points, and perhaps on a machine that was started at another time."""
    claimed.attempt._started -= 1000
    monkeypatch.setattr(train, "fit", lambda job, _: write_curve(job.attempt.path, []))
    monkeypatch.setattr(train.tune, "get_context", lambda: SimpleNamespace(get_trial_id=lambda: "7"))
    train._trial({"point": "point"}, {"point": claimed})
    made = Store(claimed.store).get(claimed.attempt.key)
    assert made is not None
    assert made.facts["seconds"] < 100


def test_a_point_begins_once_its_run_is_no_longer_held(claimed: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = Control(claimed.store).folder / "hold-driver"
    hold.parent.mkdir()
    hold.touch()
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            hold.unlink()

    monkeypatch.setattr(train.time, "sleep", wait)
    assert train._may_begin(claimed)
    assert len(waits) == 3
    assert stopped_at(claimed.attempt.path) is None


def test_a_point_that_is_to_stop_does_not_begin_even_while_its_run_is_held(claimed: Job) -> None:
    control = Control(claimed.store)
    control.stop(claimed.attempt.key.id)
    (control.folder / "hold-driver").touch()
    assert not train._may_begin(claimed)
    assert stopped_at(claimed.attempt.path) == 0


def test_points_are_left_and_taken_up_as_they_are_asked_to(tiny_grid: TinyGrid) -> None:
    grid = load_grid(tiny_grid())
    store = Store(grid.runtime.store)
    made = make_plan(grid, Outer(store.root))
    first, second = made.points[:2]
    with Locks() as locks, Terminal(Console(quiet=True)) as progress:
        work = Work(made, store, Outer(store.root), locks, progress, Resources((Node(1, 0),), 1))
        work.control.stop(first.train.key.id)
        work.control.stop(second.train.key.id)
        train._leave_stopped(made.points, work)
        exports = [*first.exports.values(), *second.exports.values()]
        assert work.missing([first.train, second.train, *exports]) == []
        assert work.stopped == {step.key.id for step in (first.train, second.train, *exports)}
        work.control.unstop([second.train.key.id])
        train._leave_stopped(made.points, work)
        found = work.missing([first.train, second.train, *exports])
        assert found == [second.train, *second.exports.values()]
        assert work.stopped == work.failed.keys() == {step.key.id for step in (first.train, *first.exports.values())}
