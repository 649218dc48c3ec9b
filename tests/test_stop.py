"""A real run from which a point, on two workers, is taken by `kdray stop`, and which goes on after `kdray release`."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from kdray.artifacts.curve import count_steps
from kdray.artifacts.notes import stopped_at
from kdray.plan import make_plan
from kdray.plan.progress import training_status
from kdray.spec import load_grid
from kdray.store import Control, Outer, Store
from tests.conftest import Run
from tests.tiny import write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow]
MAIN = "from kdray.cli import main; main()"


def test_a_stopped_point_ends_alone_and_goes_on_from_its_checkpoint(tmp_path, run: Run) -> None:
    path = write_grid(
        tmp_path,
        teacher="null",
        train="{steps: 160, keep: [2, 160]}",
        axes="{lr: [3.0e-3, 1.0e-3], batch: [4], alpha: [0]}",
        score="{tasks: [heldout_loss], references: []}",
        runtime=f"{{store: '{tmp_path}/store', checkpoint_every: 20, workers: 2}}",
    )
    store = Store(load_grid(path).runtime.store)
    plan = make_plan(load_grid(path), Outer(store.root))
    first, second = (point.train for point in plan.points)
    command = [sys.executable, "-c", MAIN, "run", str(path)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        attempt, deadline = store.folder(first.key) / "attempt-001", time.monotonic() + 300
        while count_steps(attempt) < 3:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert Control(store.root).runs("tiny")[0].pid == process.pid
        assert training_status(first, store).state == "running"
        assert "(within seconds, after a step)" in run("stop", path, first.slug)[1]
        output, _ = process.communicate(timeout=300)
    finally:
        process.kill()

    step = stopped_at(attempt)
    assert step is not None
    assert 3 <= step < 160
    assert step == count_steps(attempt)
    assert json.loads((attempt / f"checkpoint-{step:08d}" / "manifest.json").read_text())["step"] == step
    assert process.returncode == 1, output
    assert f"stopped train {first.slug} at step {step}" in output
    assert f"stopped: {first.slug}; `kdray release {path} POINT...`, then the same command goes on" in output
    assert "failed" not in output
    assert store.get(second.key)
    assert [s.measure.state(store) for s in plan.scores] == ["done", "missing", "done", "done"], "what it has exported"
    assert training_status(first, store).state == "stopped"
    assert run("logs", path, first.slug)[1].splitlines()[-1].startswith(f"stopped at step {step}: `kdray release ")

    assert run("release", path, first.slug)[0] == 0
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=400)
    assert again.returncode == 0, again.stdout + again.stderr
    made = store.get(first.key)
    assert made
    assert made.facts["resumed_from_step"] == step
    assert all(each.state(store) == "done" for each in plan.steps())
