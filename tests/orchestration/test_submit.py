"""A grid is one job at a time, however often it is submitted."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

import pytest

from kdray.orchestration import submit as module
from kdray.orchestration.submit import ADDRESS, START, submit
from kdray.spec.errors import InputError

TEXT = b"name: tiny\n"


class Status(StrEnum):
    RUNNING = "RUNNING"
    FAILED = "FAILED"
    SUCCEEDED = "SUCCEEDED"

    def is_terminal(self) -> bool:
        return self is not Status.RUNNING


class Cluster:
    """Plays Ray's job server: every job that is followed ends with `end`."""

    def __init__(
        self, *jobs: tuple[str, Status, bytes], taken: tuple[str, ...] = (), end: Status = Status.SUCCEEDED
    ) -> None:
        self.jobs = [
            SimpleNamespace(submission_id=f"job-{i}", status=status, metadata=metadata(name, text))
            for i, (name, status, text) in enumerate(jobs)
        ]
        self.jobs.append(
            SimpleNamespace(submission_id=None, status=Status.RUNNING, metadata=None)
        )  # somebody's notebook
        self.taken, self.end = taken, end
        self.started: list[dict[str, Any]] = []

    def list_jobs(self) -> list[SimpleNamespace]:
        return self.jobs

    def submit_job(self, **job: Any) -> None:
        if job["submission_id"] in self.taken:
            raise RuntimeError(
                f"Job with submission_id {job['submission_id']} already exists. Please use a different submission_id."
            )
        self.started.append(job)

    async def tail_job_logs(self, id: str) -> AsyncIterator[str]:
        yield f"output of {id}\n"

    def get_job_status(self, id: str) -> Status:
        return self.end


def metadata(name: str, text: bytes) -> dict[str, str]:
    return {"kdray.grid": name, "kdray.sha256": hashlib.sha256(text).hexdigest()}


@pytest.fixture
def call(tmp_path, monkeypatch):
    def submitted(cluster: Cluster) -> tuple[bool, str]:
        (tmp_path / "grid.yaml").write_bytes(TEXT)
        monkeypatch.setattr(module, "connect", lambda: cluster)
        said: list[str] = []
        ended = submit(tmp_path / "grid.yaml", "tiny", "/a folder", ["--insecure-cluster"], said.append)
        return ended, "".join(said)

    return submitted


def test_a_grid_is_submitted_and_followed(call):
    cluster = Cluster(("other", Status.RUNNING, TEXT), ("tiny", Status.FAILED, TEXT), ("other", Status.FAILED, TEXT))
    cluster.jobs[1].submission_id = "kdray-tiny-7"  # those before it were deleted
    ended, said = call(cluster)
    assert ended
    [job] = cluster.started
    assert job["submission_id"] == "kdray-tiny-8"
    assert job["metadata"] == metadata("tiny", TEXT)
    assert job["entrypoint"].startswith("cd '/a folder' && ")
    assert job["entrypoint"].endswith('"$OLDPWD/start.py" run --insecure-cluster -- "$OLDPWD/grid.yaml"')
    assert "kdray-tiny-8: submitted" in said
    assert "output of kdray-tiny-8" in said
    assert said.endswith("kdray-tiny-8: succeeded\n")


@pytest.mark.slow
def test_an_environment_without_the_packages_is_told_in_one_line(tmp_path):
    bare = subprocess.run([sys.executable, "-I", "-S", "-c", START], capture_output=True, text=True, check=False)
    assert bare.returncode == 1
    assert "has no typer, pydantic, rich," in bare.stderr
    assert bare.stderr.count("\n") == 1
    whole = subprocess.run(
        [sys.executable, "-c", START, "check", "nowhere.yaml"], capture_output=True, text=True, check=False
    )
    assert whole.returncode == 2
    assert "nowhere.yaml" in whole.stderr


def test_a_running_grid_is_only_followed(call):
    cluster = Cluster(("tiny", Status.FAILED, TEXT), ("tiny", Status.RUNNING, TEXT))
    ended, said = call(cluster)
    assert ended
    assert cluster.started == []
    assert said.startswith("job-1: running already\n")
    assert "output of job-1" in said


def test_a_running_grid_of_another_text_is_followed_and_said_to_be_one(call):
    cluster = Cluster(("tiny", Status.RUNNING, b"name: tiny # before\n"))
    assert "from an earlier text of the grid file: stop it" in call(cluster)[1]
    assert cluster.started == []


def test_of_two_calls_at_once_one_follows_the_other(call):
    cluster = Cluster(taken=("kdray-tiny-1",))
    ended, said = call(cluster)
    assert ended
    assert cluster.started == []
    assert "kdray-tiny-1: submitted by somebody else at the same moment" in said
    assert "output of kdray-tiny-1" in said


def test_a_job_that_fails_is_told(call):
    ended, said = call(Cluster(end=Status.FAILED))
    assert not ended
    assert said.endswith("kdray-tiny-1: failed\n")


def test_a_connection_that_is_lost_is_one_line(call, monkeypatch):
    async def broken(_: Cluster, id: str) -> AsyncIterator[str]:
        yield f"output of {id}\n"
        raise RuntimeError("WebSocket connection closed unexpectedly with close code 1006")

    monkeypatch.setattr(Cluster, "tail_job_logs", broken)
    ended, said = call(Cluster())
    assert not ended
    assert said.splitlines()[-1] == (
        "kdray-tiny-1: the connection is lost (WebSocket connection closed unexpectedly with close code 1006), and the"
        " job runs on: the same command follows it again"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "not set"),
        ("http://127.0.0.1:1", "no cluster at http://127.0.0.1:1 ("),
        ("ray://127.0.0.1:1", "a Ray client's address"),
    ],
)
def test_no_cluster_is_one_line(address, message, tmp_path, monkeypatch):
    (tmp_path / "grid.yaml").write_bytes(TEXT)
    monkeypatch.setenv(ADDRESS, address)
    with pytest.raises(InputError, match=ADDRESS) as error:
        submit(tmp_path / "grid.yaml", "tiny", "/", [], print)
    assert message in str(error.value)
