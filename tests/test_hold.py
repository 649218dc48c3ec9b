"""A real run that is interrupted while `kdray hold` keeps its points from beginning, and goes on afterwards; one of
them is stopped meanwhile.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from kdray.plan import make_plan
from kdray.plan.progress import training_status
from kdray.spec import load_grid
from kdray.store import Control, Outer, Store
from tests.conftest import Run
from tests.test_run import wait_until
from tests.tiny import write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly]
MAIN = "from kdray.cli import main; main()"
SOON = 60  # seconds in which a run ends on a busy machine


def started(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MAIN, "run", str(path)]
    return subprocess.Popen(command, cwd=path.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_held_run_that_is_interrupted_ends_soon_and_the_next_is_not_held(tmp_path: Path, run: Run) -> None:
    path = write_grid(
        tmp_path,
        teacher="null",
        train="{steps: 4}",
        axes="{lr: [3.0e-3, 1.0e-3], batch: [4], alpha: [0]}",
        score="{tasks: [heldout_loss], references: []}",
    )
    store = Store(load_grid(path).runtime.store)
    plan = make_plan(load_grid(path), Outer(store.root))
    assert plan.prepare
    control, trains = Control(store.root), [point.train for point in plan.points]

    def wait() -> bool:
        """Whether the run has all points in hand, and none has begun."""
        return {training_status(train, store).state for train in trains} == {"waiting"}

    for sent, ends_with in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = started(path)
        try:
            wait_until(lambda: control.runs("tiny"), process)
            assert run("hold", path)[0] == 0
            wait_until(wait, process)
            time.sleep(5)
            assert wait()
            if sent == signal.SIGTERM:
                assert run("stop", path, trains[0].slug)[0] == 0
                wait_until(lambda: training_status(trains[0], store).why == "stopped before it began", process)
                time.sleep(5)
            family = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(sent)
            output, _ = process.communicate(timeout=SOON)
        finally:
            process.kill()
        assert process.returncode == ends_with, output
        assert "held tiny: no new point begins" in output
        assert (f"stopped train {trains[0].slug} before it began" in output) == (sent == signal.SIGTERM)
        assert "Trial" not in output, "what Tune says of trials without results"
        assert output.rstrip().endswith("interrupted: nothing finished is lost, the same command goes on")
        assert "Traceback" not in output
        assert "Stack" not in output
        assert psutil.wait_procs(family, timeout=SOON)[1] == [], "nothing runs on"
        assert store.get(plan.prepare.key)
        assert not [*control.folder.glob("run-*"), *control.folder.glob("hold-*")], "the hold went with its run"

    assert run("release", path, trains[0].slug)[0] == 0
    process = started(path)
    try:
        output, _ = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "held tiny" not in output
    assert all(step.state(store) == "done" for step in plan.steps())
