"""`kdray status` and `kdray logs`: what a run and its points have written, as one reads it on another machine."""

from __future__ import annotations

import contextlib
import json

import pytest

from kdray.artifacts.curve import append_step, append_time, log_files, write_curve
from kdray.artifacts.notes import note_end, note_start
from kdray.cli import logs as logs_module
from kdray.cli import status as module
from kdray.cli.status import duration
from kdray.plan import Plan, make_plan
from kdray.spec import load_grid
from kdray.store import Attempt, Control, Locks, Outer, Store
from tests.conftest import Run, TinyGrid
from tests.plan.conftest import seal

START = {"steps": 4, "node": "node1", "device": "H200"}
STEPS = [
    {"step": i, "examples": 2 * i, "tokens": 9, "loss": 1 / i, "ce": 1.0, "lr": 1e-3}
    | ({"heldout_ce": 2.5} if i == 2 else {})
    for i in range(1, 5)
]


def begin(made: Plan, store: Store, steps: int, resumed: int = 0) -> Attempt:
    """An attempt at the first point that got so far, from the steps of an earlier one."""
    point = made.points[0].train
    attempt = store.begin(point.key, point.payload or {})
    note_start(attempt.path, START)
    write_curve(attempt.path, STEPS[:resumed])
    for entry in STEPS[resumed:steps]:
        append_step(attempt.path, entry)
        append_time(attempt.path, int(entry["step"]), 90.0)
    return attempt


def test_status_shows_points_and_what_is_waited_for(run: Run, made: Plan, store: Store) -> None:
    with Locks() as locks, Control(store.root).announced("tiny", locks):
        assert locks.try_acquire(begin(made, store, 3).folder)
        code, stdout, stderr = run("status", "grid.yaml")
    lines = [line.split() for line in stdout.splitlines()]
    assert (code, stderr) == (0, "")
    assert lines[0][:3] == ["run", "by", "process"]
    assert ["train", "1", "3", "augment"] not in lines
    [train] = [line for line in lines if line[:1] == ["train"]]
    assert train[:3] == ["train", "1", "3"]
    assert ["lr0.0001-b2-a0-s0", "running", "3/4", "2.5000", "2", "min", "node1,", "H200"] in lines
    assert ["lr0.001-b2-a0-s0", "missing", "0/4"] in lines
    assert "no run is at work: `kdray run grid.yaml` does what is missing" in run("status", "grid.yaml")[1]


def test_the_memory_of_gpus_is_shown_where_it_is_known(run: Run, made: Plan, store: Store) -> None:
    with Locks() as locks:
        attempt = begin(made, store, 3)
        assert locks.try_acquire(attempt.folder)
        assert "GPU memory" not in run("status", "grid.yaml")[1]
        append_time(attempt.path, 4, 90.0, 61.25)
        _, stdout, _ = run("status", "grid.yaml")
        listed = json.loads(run("status", "grid.yaml", "--json")[1])["points"]
    lines = [line.split() for line in stdout.splitlines()]
    assert ["lr0.0001-b2-a0-s0", "running", "3/4", "2.5000", "2", "min", "61.2", "GiB", "node1,", "H200"] in lines
    assert ["lr0.001-b2-a0-s0", "missing", "0/4"] in lines
    assert [point["gpu_gib"] for point in listed[:2]] == [61.25, None]
    append_step(attempt.path, STEPS[3])
    attempt.seal(log_files(attempt.path), **START)
    assert "61.2 GiB" in run("status", "grid.yaml")[1], "also of a point that is done"


def test_what_a_point_that_samples_spends_its_time_on_is_shown(run: Run, tiny_grid: TinyGrid, store: Store) -> None:
    changes = {"axes.labels": ["student"], "axes.alpha": [1], "soft_labels": {"form": "online"}}
    made = make_plan(load_grid(tiny_grid(changes)), Outer(store.root))
    with Locks() as locks:
        attempt = begin(made, store, 0)
        assert locks.try_acquire(attempt.folder)
        append_step(attempt.path, {"step": 1, "examples": 2, "tokens": 24, "loss": 1.0, "sampled_length": 12.4})
        append_time(attempt.path, 1, 10.0, None, {"sampling": 6.0, "teacher": 1.4})
        stdout = run("status", "grid.yaml")[1]
    assert "sampling/teacher/rest" in stdout
    assert "60/14/26%" in stdout
    assert "12 tokens" in stdout


def test_running_steps_of_a_kind_are_one_line(run: Run, made: Plan, store: Store) -> None:
    with Locks() as locks:
        for score in made.scores[:5]:
            key = score.measure.key
            assert locks.try_acquire(store.begin(key, score.measure.payload or {}).folder)
        teacher = made.models["teacher"]
        attempt = store.begin(teacher.key, teacher.payload or {})
        note_start(attempt.path, START)
        append_step(attempt.path, STEPS[0])
        assert locks.try_acquire(attempt.folder)
        lines = [line for line in run("status", "grid.yaml")[1].splitlines() if line.startswith("running")]
    first, second = (score.measure.slug for score in made.scores[:2])
    assert lines == [f"running: teach {teacher.slug} (1/4)", f"running: measure {first}, {second} and 3 more"]


def test_a_watch_ends_when_all_is_done(run: Run, made: Plan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def finish(seconds: float) -> None:
        looks.append(seconds)
        seal(store, *(step for step in made.steps() if not store.get(step.key)))

    monkeypatch.setattr(module.time, "sleep", finish)
    code, stdout, _ = run("status", "grid.yaml", "--watch")
    assert (code, looks) == (0, [module.EVERY])
    assert "all is done" in stdout
    assert "missing" not in stdout.split("point", 1)[1]


def test_a_watch_ends_with_the_run_that_it_has_seen(
    run: Run, made: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left then, such as points that were stopped, stays so; before a run it waits for one."""
    looks, at_work = [], contextlib.ExitStack()

    def move(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            locks = at_work.enter_context(Locks())
            at_work.enter_context(Control(store.root).announced(made.grid.name, locks))
        elif len(looks) == 4:
            at_work.close()

    monkeypatch.setattr(module.time, "sleep", move)
    code, stdout, _ = run("status", "grid.yaml", "--watch")
    assert (code, len(looks)) == (0, 4)
    assert "no run is at work" in stdout


def test_ctrl_c_leaves_a_watch_and_a_log_quietly(
    run: Run, made: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.time, "sleep", interrupt)
    code, _, stderr = run("status", "grid.yaml", "--watch")
    assert (code, stderr) == (0, "")
    with Locks() as locks:
        assert locks.try_acquire(begin(made, store, 1).folder)
        code, _, stderr = run("logs", "grid.yaml", made.points[0].train.slug, "--follow")
    assert (code, stderr) == (0, "")


def test_a_log_has_a_line_a_step_and_says_why_it_ended(run: Run, made: Plan, store: Store) -> None:
    slug = made.points[0].train.slug
    assert run("logs", "grid.yaml", slug) == (
        0,
        "no run is at work on it: `kdray run grid.yaml` goes on with it\n",
        "",
    )
    begin(made, store, 3)
    attempt = begin(made, store, 3, resumed=1)
    note_end(attempt.path, "loss nan")
    assert run("logs", "grid.yaml", slug) == (
        0,
        f"{slug} attempt-002 on node1, H200\n"
        "step 1/4  loss 1.0000  lr 0.001  tokens 9\n"
        "step 2/4  loss 0.5000  lr 0.001  tokens 9  90.00 s  held-out loss 2.5000\n"
        "step 3/4  loss 0.3333  lr 0.001  tokens 9  90.00 s\n"
        "loss nan\n",
        "",
    )


def test_a_log_is_followed_until_the_point_is_done(
    run: Run, made: Plan, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Locks() as locks:
        attempt = begin(made, store, 1)
        assert locks.try_acquire(attempt.folder)
        waits = []

        def train(seconds: float) -> None:
            waits.append(seconds)
            step = len(waits) + 1
            append_step(attempt.path, STEPS[step - 1])
            if step == 4:
                attempt.seal(log_files(attempt.path), **START)

        monkeypatch.setattr(logs_module.time, "sleep", train)
        code, stdout, _ = run("logs", "grid.yaml", made.points[0].train.slug, "--follow")
    assert (code, len(waits)) == (0, 3)
    lines = stdout.splitlines()
    assert [line.split()[1] for line in lines[1:5]] == ["1/4", "2/4", "3/4", "4/4"], "each once"
    assert lines[5].startswith("done in ")


def test_durations_are_read_at_a_glance() -> None:
    assert [duration(seconds) for seconds in (4.4, 61, 3599, 3 * 3600 + 300)] == [
        "4 s",
        "1 min",
        "1 h 00 min",
        "3 h 05 min",
    ]
