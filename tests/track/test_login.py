"""The MLflow server of cluster/mlflow.sh: nobody gets in without the password, which is told to nobody."""

from __future__ import annotations

import base64
import configparser
import os
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
import ray.util

from tests.conftest import ROOT
from tests.orchestration.nodes import free_port
from tests.track.bench import Bench
from tests.track.test_server import stop, wait_for

pytestmark = pytest.mark.slow
SCRIPT = ROOT / "cluster" / "mlflow.sh"


def test_a_grid_is_mirrored_only_with_the_password(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdray.track.connection import TrackingError
    from kdray.track.mirror import Mirror

    folder, port, log = tmp_path / "server", free_port(), tmp_path / "server.log"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")  # checking a password takes a busy machine longer than 5 s
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with log.open("wb") as file:
        command = ["sh", str(SCRIPT), str(folder), "127.0.0.1", str(port)]
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=file, stderr=file, env=environment, start_new_session=True
        )
    try:
        url = bench.changes["runtime.mlflow"] = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/health")
        question = urllib.request.Request(f"{url}/api/2.0/mlflow/experiments/search?max_results=1")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(question, timeout=60)
        with socket.socket() as other:
            assert other.connect_ex((ray.util.get_node_ip_address(), port)) != 0
        bench.finish()
        with pytest.raises(TrackingError):
            Mirror(bench.plan, bench.store).finish()
        credentials = configparser.ConfigParser()
        credentials.read(folder / "credentials")
        password = credentials["mlflow"]["mlflow_tracking_password"]
        question.add_header("Authorization", "Basic " + base64.b64encode(f"admin:{password}".encode()).decode())
        with urllib.request.urlopen(question, timeout=60) as answer:
            assert answer.status == 200
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", credentials["mlflow"]["mlflow_tracking_username"])
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
        Mirror(bench.plan, bench.store).finish()
        with closing(sqlite3.connect(folder / "runs.db")) as runs:
            assert runs.execute("select count(*) from runs").fetchone()[0] >= len(bench.plan.points)
    finally:
        stop(process)
    assert len(password) >= 32
    assert password not in log.read_text()
    assert {path.name for path in folder.iterdir() if path.stat().st_mode & 0o077} == set()
