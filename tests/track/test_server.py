"""The mirror through a real `mlflow server`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kdray.track.address import SERVER, view_link
from kdray.track.connection import TrackingError
from kdray.track.mirror import Mirror
from tests.track.bench import Bench
from tests.track.test_mirror import ALL_ROWS

START = 180  # seconds that a server may take to answer, on a busy machine
pytestmark = pytest.mark.slow


@pytest.fixture
def server(bench: Bench, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server on the bench's own file, which the grid then names by its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--backend-store-uri", f"sqlite:///{bench.database}", "--artifacts-destination", str(tmp_path / "served")]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        *where,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=log, stderr=log, env=SERVER | os.environ, start_new_session=True
        )
    bench.changes["runtime.mlflow"] = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        yield process
    finally:
        stop(process)


def wait_for(url: str) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    raise TimeoutError(url)


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_through_a_server(
    bench: Bench, server: subprocess.Popen[bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.finish()
    Mirror(bench.plan, bench.store).finish()
    assert bench.of("params", 0.1) == {
        "alpha": "0.1",
        "batch": "2",
        "family": "toy",
        "labels": "gold",
        "lr": "0.0003",
        "seed": "0",
    }
    assert bench.of("latest_metrics", 0.1)["held_rougeL"] == 10.1
    rows, runs = bench.rows(), bench.runs()
    assert len(rows) == ALL_ROWS
    assert all(delay == step for _, _, step, _, delay in rows)
    assert len(list((tmp_path / "served").rglob("scores.json"))) == 4
    again = Mirror(bench.plan, bench.store)
    again.finish()
    assert (bench.rows(), bench.runs(), bench.runs("deleted")) == (rows, runs, {})
    assert capfd.readouterr().out == ""  # MLflow likes to announce its runs
    link = view_link(bench.plan.grid, bench.store)
    assert link is not None
    assert link.startswith(bench.changes["runtime.mlflow"] + "/#/experiments/1/runs?viewStateShareKey=")

    stop(server)
    started = time.monotonic()
    bench.measure("teacher", None, 1.0)
    with pytest.raises(TrackingError):
        again.finish()
    assert time.monotonic() - started < 30


def test_a_server_of_kdrays_is_one_process_and_its_worker(server: subprocess.Popen[bytes]) -> None:
    """MLflow starts nine more to run jobs on traces, which nobody has asked for."""
    family, found = psutil.Process(server.pid), set()
    for child in family.children(recursive=True):
        found |= {part for part in child.cmdline() if "huey" in part or "job_runner" in part}
    assert found == set()
