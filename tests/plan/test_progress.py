"""How far training steps are, told from what their attempts have written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from kdray.artifacts.curve import append_step, append_time, log_files
from kdray.artifacts.notes import note_end, note_start, note_stop
from kdray.plan import Plan, PointPlan
from kdray.plan.listing import listed_status
from kdray.plan.progress import TrainingStatus, begun_attempt, find_point, find_points, training_status
from kdray.spec import InputError
from kdray.store import Attempt, Control, Locks, Store
from tests.plan.conftest import MakePlan

START = {"steps": 4, "node": "node1", "device": "H200"}


def train(attempt: Attempt, steps: int, **heldout: float) -> None:
    """What a worker writes in its first steps; `heldout` goes with the first."""
    note_start(attempt.path, START)
    for step in range(1, steps + 1):
        entry = {"step": step, "examples": 2 * step, "tokens": 9, "loss": 1.0 / step, "ce": 1.0, "lr": 1e-3}
        append_step(attempt.path, entry | (heldout if step == 1 else {}))
        append_time(attempt.path, step, 1.5)


@pytest.fixture
def made(plan: MakePlan) -> Plan:
    return plan()


@pytest.fixture
def point(made: Plan) -> PointPlan:
    return made.points[0]


@pytest.fixture
def locks() -> Iterator[Locks]:
    with Locks() as locks:
        yield locks


def begin(point: PointPlan, store: Store, locks: Locks | None = None) -> Attempt:
    attempt = store.begin(point.train.key, point.train.payload or {})
    if locks:
        assert locks.try_acquire(attempt.folder)
    return attempt


def look(point: PointPlan, store: Store) -> TrainingStatus:
    return training_status(point.train, store)


def test_a_point_from_nothing_to_its_end(point: PointPlan, store: Store, locks: Locks) -> None:
    found = look(point, store)
    assert (found.state, found.step, found.total) == ("missing", 0, 4)
    attempt = begin(point, store, locks)
    assert look(point, store).state == "waiting"
    train(attempt, 3, heldout_ce=2.5)
    assert look(point, store) == TrainingStatus(
        point.train.slug, point.train.id, "running", 3, 4, 2.5, 1.5, "node1", "H200"
    )
    append_step(attempt.path, {"step": 4, "examples": 8, "tokens": 9, "loss": 1.0, "ce": 1.0, "heldout_ce": 2.25})
    attempt.seal(log_files(attempt.path), **START)
    assert look(point, store) == TrainingStatus(
        point.train.slug, point.train.id, "done", 4, 4, 2.25, None, "node1", "H200"
    )


def test_a_point_whose_student_samples_says_how_long_and_on_what_time_was_spent(
    plan: MakePlan, store: Store, locks: Locks
) -> None:
    point = plan({"axes.labels": ["student"], "axes.alpha": [1], "soft_labels": {"form": "online"}}).points[0]
    attempt = begin(point, store, locks)
    train(attempt, 0)
    for step, (sampling, sampled) in enumerate([(3.0, {"sampled_length": 10.0}), (0.0, {"ce": 1.0})], start=1):
        append_step(attempt.path, {"step": step, "examples": 2 * step, "tokens": 20, "loss": 1.0, **sampled})
        append_time(attempt.path, step, 5.0, None, {"sampling": sampling, "teacher": 1.0})
    found = look(point, store)
    assert found.sampled_length == 10, "of the steps that sampled"
    assert found.shares == pytest.approx({"sampling": 0.3, "teacher": 0.2, "rest": 0.5})
    attempt.seal(log_files(attempt.path), **START)
    assert look(point, store) == replace(found, state="done", left=None)


def test_a_point_that_a_search_has_stopped_says_why(point: PointPlan, store: Store, locks: Locks) -> None:
    attempt = begin(point, store, locks)
    train(attempt, 3)
    Control(store.root).stop(point.train.key.id, early="held-out loss 3.2 at 2 steps")
    assert look(point, store).state == "stopping"
    note_stop(attempt.path, 3)
    locks.release(attempt.folder)
    found = look(point, store)
    assert (found.state, found.why) == ("stopped early", "stopped at step 3: held-out loss 3.2 at 2 steps")


def test_a_stopped_point_says_where_and_goes_on_once_it_is_released(
    point: PointPlan, store: Store, locks: Locks
) -> None:
    attempt, control = begin(point, store, locks), Control(store.root)
    train(attempt, 3)
    control.stop(point.train.key.id)
    assert look(point, store).state == "stopping"
    note_stop(attempt.path, 3)
    found = look(point, store)
    assert (found.state, found.step, found.left, found.why) == ("stopped", 3, None, "stopped at step 3")
    locks.release(attempt.folder)
    assert look(point, store).state == "stopped"
    control.unstop([point.train.key.id])
    assert look(point, store).state == "missing"
    again = begin(point, store, locks)
    found = look(point, store)
    assert (found.state, found.step, found.why) == ("waiting", 3, None), "as far as the attempt before"
    assert begun_attempt(point.train, store) == attempt.path
    train(again, 2)
    assert look(point, store).step == 2


def test_a_point_that_is_to_stop_before_it_has_begun_is_stopped(point: PointPlan, store: Store, locks: Locks) -> None:
    begin(point, store, locks)
    Control(store.root).stop(point.train.key.id)
    assert look(point, store).state == "stopped"


def test_a_point_that_cannot_go_on_says_why(point: PointPlan, store: Store, locks: Locks) -> None:
    attempt = begin(point, store, locks)
    train(attempt, 1)
    note_end(attempt.path, "loss nan")
    found = look(point, store)
    assert (found.state, found.step, found.why) == ("failed", 1, "loss nan")


def test_a_damaged_curve_is_one_line(point: PointPlan, store: Store) -> None:
    attempt = begin(point, store)
    train(attempt, 1)
    (attempt.path / "metrics.jsonl").write_text("[]\n")
    with pytest.raises(InputError, match="line 1 holds no numbers by name"):
        look(point, store)


def test_points_are_found_by_name_id_and_what_begins_one_alone(made: Plan, point: PointPlan) -> None:
    slug, id = point.train.slug, point.train.key.id
    assert slug == "lr0.0001-b2-a0-s0"
    for name in (slug, id, id[:5], "lr0.0001-b2-a0-"):
        assert find_point(made, name) is point
    assert find_points(made, [slug, id]) == [point]
    with pytest.raises(
        InputError, match=r"POINT: 'lr0\.0001' begins 2 points; say more: lr0\.0001-b2-a0-s0, lr0\.0001-"
    ):
        find_point(made, "lr0.0001")
    with pytest.raises(InputError, match=r"POINT: no point ''; known: "):
        find_point(made, "")


def test_a_name_that_begins_others_is_still_that_points(plan: MakePlan) -> None:
    made = plan({"axes.seed": [1, 10]})
    assert find_point(made, "lr0.0001-b2-a0-s1").train.slug == "lr0.0001-b2-a0-s1"


def test_points_without_ids_are_refused(plan: MakePlan) -> None:
    made = plan({"student.model": "hf:org/student"})
    assert training_status(made.points[0].train, Store("nowhere")).state == "unresolved"
    with pytest.raises(InputError, match="has no id before its references are resolved; run the grid first"):
        find_points(made, [made.points[0].train.slug])


def test_the_list_says_who_runs_and_what_waits_for_what(
    made: Plan, point: PointPlan, store: Store, locks: Locks
) -> None:
    teacher = made.models["teacher"]
    attempt = store.begin(teacher.key, teacher.payload or {})
    assert locks.try_acquire(attempt.folder)
    train(attempt, 1)
    begin(point, store, locks)
    with Control(store.root).announced("tiny", locks):
        listed = listed_status(made, store)
    assert [(run["grid"], run["held"]) for run in listed["runs"]] == [("tiny", False)]
    assert listed["running"] == [
        {"kind": "teach", "slug": teacher.slug, "id": teacher.id, "step": 1, "total": 4},
    ]
    assert listed["waits"]["soften"] == {"teach": 1, "prepare": 1}
    assert listed["waits"]["student"] == {"train": 8}
    assert listed["steps"]["train"] == {"running": 1, "missing": 3}
    assert [found["state"] for found in listed["points"]] == ["waiting", "missing", "missing", "missing"]
