"""A whole small grid under Ray on one GPU, killed and gone on with, beside the same on the CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kdray.artifacts.scores import read_scores
from tests.conftest import ROOT
from tests.gpu import NEEDS_GPU
from tests.gpu.conftest import Figure
from tests.tiny import write_grid

pytestmark = [*NEEDS_GPU, pytest.mark.ray]
TIMEOUT = 300


def start(grid: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "kdray", "run", str(grid)]
    with said(grid).open("a") as file:
        return subprocess.Popen(command, cwd=grid.parent, env=environment, stdout=file, stderr=subprocess.STDOUT)


def said(grid: Path) -> Path:
    """What its runs print."""
    return grid.with_suffix(".log")


def finish(grid: Path) -> None:
    """Run it to its end."""
    running = start(grid)
    try:
        running.wait(TIMEOUT)
    finally:
        running.kill()
    assert running.returncode == 0, said(grid).read_text()[-4000:]


def held_by_processes() -> int:
    """Bytes of the card's memory that are not free."""
    free, total = torch.cuda.mem_get_info()
    return total - free


def heldout_losses(folder: Path) -> dict[str, float]:
    """Of all scored models, by the slug of their step."""
    done = [path.parent for path in (folder / "store" / "measure").glob("*heldout_loss*/DONE")]
    return {
        f"{one.name.rsplit('-', 1)[0]}/{name}": score.value
        for one in done
        for attempt in one.glob("attempt-*/scores.json")
        for name, score in read_scores(attempt.parent).items()
    }


def write(folder: Path, device: str) -> Path:
    folder.mkdir()
    return write_grid(
        folder,
        runtime=f"{{store: '{folder}/store', checkpoint_every: 2, device: {device}}}",
        train="{steps: 12, keep: [6, 12]}",
        axes="{lr: [3.0e-3], batch: [4], alpha: [0, 1], seed: [0, 1]}",
    )


def test_a_grid_on_a_gpu_gives_a_cpus_numbers_and_survives_a_kill(tmp_path: Path, figure: Figure) -> None:
    pytest.importorskip("ray")
    before = held_by_processes()
    begin = time.perf_counter()
    grid = write(tmp_path / "gpu", "gpu")
    running = start(grid)
    while not list((tmp_path / "gpu" / "store" / "train").glob("*/attempt-*/checkpoint-*/manifest.json")):
        assert running.poll() is None, said(grid).read_text()[-4000:]
        assert time.perf_counter() - begin < TIMEOUT / 2, said(grid).read_text()[-4000:]
        time.sleep(0.1)
    running.send_signal(signal.SIGKILL)
    running.wait()
    finish(grid)
    figure("seconds of a grid of four points on the GPU, killed once", time.perf_counter() - begin)
    trained = [json.loads(done.read_text())["facts"] for done in (tmp_path / "gpu" / "store" / "train").glob("*/DONE")]
    assert {one["device"] for one in trained} == {torch.cuda.get_device_name()}
    assert any(one["resumed_from_step"] for one in trained), trained
    for _ in range(50):
        if (left := held_by_processes() - before) < 1 << 28:
            break
        time.sleep(0.2)
    figure("bytes that the grid left on the GPU", left, at_most=1 << 28)
    finish(write(tmp_path / "cpu", "cpu"))
    ours, theirs = (heldout_losses(tmp_path / device) for device in ("gpu", "cpu"))
    assert theirs
    assert ours.keys() == theirs.keys()
    worst = max(abs(ours[name] - value) / max(abs(value), 1e-9) for name, value in theirs.items())
    figure("held-out scores of the grid off a CPU's", worst, at_most=1e-2)
