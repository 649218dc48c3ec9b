"""A grid on a cluster of several nodes, one of which is lost; and clusters on which no work begins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.store import Outer, Store
from tests.orchestration.nodes import nodes, wait_until
from tests.tiny import write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TOKEN = "0123456789abcdef0123456789abcdef"
# Connects as `kdray run` would without and with --insecure-cluster, and for a grid that needs too much; says what it is
# told.
CONNECT = """
import sys
from kdray.check.machine import Need
from kdray.spec import InputError
from kdray.spec.sections.running import Runtime
from kdray.orchestration.session import ray_session
needs = [Need("train.method", "package", "torch", ""), Need("train.method", "package", "no_such_package", "get it")]
for insecure, needed in ((False, ()), (True, ()), (True, needs)):
    try:
        with ray_session(Runtime(store=sys.argv[1]), needed, insecure=insecure) as resources:
            print("fine", resources.cpus)
    except InputError as error:
        print(error)
"""


def kdray(*arguments, **options):
    command = [sys.executable, "-m", "kdray", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def test_a_grid_is_submitted_once_and_ends_well_though_a_node_is_lost(tmp_path):
    teacher = f"{{model: 'file:{tmp_path}/teacher'}}"
    path = write_grid(tmp_path, teacher=teacher, train="{steps: 200, keep: [200]}", score="{tasks: [heldout_loss]}")
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    grid = load_grid(path)
    store = Store(grid.runtime.store)
    plan = make_plan(grid, Outer(store.root))
    with nodes(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN) as cluster:
        cluster.head("--num-cpus=1")  # so one of the two points is on the node that is lost
        lost = cluster.add("--num-cpus=1")
        options = {"env": cluster.environment | {"RAY_API_SERVER_ADDRESS": cluster.dashboard}, "cwd": tmp_path}
        first = kdray("submit", path, **options)
        wait_until(lambda: all(started(store, point) for point in plan.points), first)
        second = kdray("submit", path, **options)
        cluster.lose(lost)
        outputs = [process.communicate(timeout=600)[0] for process in (first, second)]
        assert [first.returncode, second.returncode] == [0, 0], outputs
    assert "kdray-tiny-1: submitted" in outputs[0]
    assert "kdray-tiny-1: running already" in outputs[1]
    assert all("kdray-tiny-1: succeeded" in output for output in outputs)
    assert all(step.state(store) == "done" for step in plan.steps())
    assert any(store.get(point.train.key).facts["resumed_from_step"] > 0 for point in plan.points), (
        "no point had to go on"
    )


def started(store, point):
    """Whether a point has something to go on from, or has ended."""
    return bool(store.get(point.train.key)) or any(
        store.folder(point.train.key).glob("attempt-*/checkpoint-*/manifest.json")
    )


def test_hosts_without_a_token_and_a_store_that_one_node_cannot_see_are_refused_before_any_work(tmp_path):
    if subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no right to give a process mounts of its own")
    shared, store = tmp_path / "shared", tmp_path / "shared" / "store"
    store.mkdir(parents=True)
    hidden = ("unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {shared} && exec "$@"', "sh")
    with nodes(RAY_AUTH_MODE="disabled") as cluster:
        cluster.head("--num-cpus=1")
        cluster.add("--num-cpus=1", ip="127.0.0.2", wrapper=hidden)
        script = [sys.executable, "-c", CONNECT]
        environment = cluster.environment | {"RAY_ADDRESS": cluster.address}

        def told(folder: Path) -> str:
            asked = [*script, folder]
            return subprocess.run(asked, capture_output=True, text=True, env=environment, check=True).stdout

        wait_until(lambda: "2 hosts" in told(store), cluster.processes[0])
        refused, blind, _ = told(store).splitlines()
        anywhere = told(tmp_path / "seen").splitlines()
    assert refused.startswith("RAY_ADDRESS: 2 hosts without token authentication")
    assert "RAY_AUTH_MODE=token" in refused
    assert "--insecure-cluster" in refused
    assert blind.startswith(f"runtime.store: {store} on 127.0.0.2 is not the folder of that name here (1 of 2 nodes)")
    assert anywhere[1] == "fine 2"
    assert anywhere[2].startswith("train.method: the package 'no_such_package' is not installed on 127.0.0.2, ")
    assert anywhere[2].endswith(" (2 of 2 nodes); get it")
    assert not list(store.rglob("probe-*"))
    assert os.listdir(store) == ["scratch"]
