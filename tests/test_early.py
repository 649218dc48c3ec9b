"""Real runs in which ASHA stops points, leaves them stopped, and trains them to their end without the option."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kdray.artifacts.curve import count_steps
from kdray.artifacts.notes import stopped_at
from kdray.plan import make_plan
from kdray.plan.progress import training_status
from kdray.spec import load_grid
from kdray.store import Control, Outer, Store
from kdray.store.artifact import attempts
from tests.conftest import Run
from tests.tiny import write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(1800)]  # three runs
SEARCH = "search: {name: asha, grace: 20, reduction: 2}\n"


def ran(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from kdray.cli import main; main()", "run", str(path)]
    return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False, timeout=900)


def test_points_that_fall_behind_are_stopped_until_the_option_is_taken_out(tmp_path: Path, run: Run) -> None:
    path = write_grid(
        tmp_path,
        teacher="null",
        train="{steps: 400, keep: [20, 400]}",
        axes="{lr: [0.03, 0.3, 1.0, 1.5], batch: [4], alpha: [0]}",
        score="{tasks: [heldout_loss], references: []}",
        runtime=f"{{store: '{tmp_path}/store', workers: 2}}",  # one point after the other
    )
    plain = path.read_text()
    store = Store(load_grid(path).runtime.store)
    ids = [step.id for step in make_plan(load_grid(path), Outer(store.root)).steps()]
    path.write_text(plain + SEARCH)
    plan = make_plan(load_grid(path), Outer(store.root))
    assert [step.id for step in plan.steps()] == ids
    points = [point.train for point in plan.points]

    first = ran(path)
    assert first.returncode == 0, first.stdout + first.stderr
    stopped = [point for point in points if not store.get(point.key)]
    assert stopped == points[1:], "the first to reach a rung is behind nobody; each learning rate is worse than it"
    for point in stopped:
        [attempt] = attempts(store.folder(point.key))
        step = stopped_at(attempt)
        assert step is not None
        assert 20 < step < 400
        assert step == count_steps(attempt)
        assert (attempt / f"checkpoint-{step:08d}" / "manifest.json").is_file()
        status = training_status(point, store)
        assert status.state == "stopped early"
        assert f"stopped at step {step}: held-out loss" in str(status.why)
        assert f"stopped early train {point.slug} at step {step}: held-out loss" in first.stdout
    names = ", ".join(point.slug for point in stopped)
    assert f"stopped early: {names}; without `search` in {path} the same command trains them" in first.stdout
    assert f"{len(stopped)} of 4 points were stopped early" in " ".join(first.stdout.split())
    assert {s.measure.state(store) for s in plan.scores if s.position == 20} == {"done"}, "what they have exported"

    again = ran(path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert [len(attempts(store.folder(point.key))) for point in stopped] == [1] * len(stopped)
    assert f"stopped early: {names};" in again.stdout

    at = [stopped_at(attempts(store.folder(point.key))[0]) for point in stopped]
    path.write_text(plain)
    last = ran(path)
    assert last.returncode == 0, last.stdout + last.stderr
    assert "stopped" not in last.stdout
    assert all(step.state(store) == "done" for step in plan.steps())
    for point, step in zip(stopped, at, strict=True):
        made = store.get(point.key)
        assert made
        assert made.facts["resumed_from_step"] == step
        assert not Control(store.root).is_stopped(point.key.id)
