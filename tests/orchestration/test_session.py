"""Which Ray is used: the one that RAY_ADDRESS names, else one of our own, never one that happens to run here."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import ray

from kdray.orchestration.session import ray_session
from kdray.spec.sections.running import Runtime
from tests.tiny import write_grid

CLUSTER = """
from ray.cluster_utils import Cluster
head = {"num_cpus": 5, "include_dashboard": False, "object_store_memory": 100 << 20}
cluster = Cluster(initialize_head=True, head_node_args=head)
print(cluster.address, flush=True)
input()
cluster.shutdown()
"""


AFTERWARDS = """
import os
from kdray.orchestration.session import QUIET
os.environ.update(QUIET)
import ray
ray.put(1)
"""


@pytest.mark.slow
def test_what_asks_ray_for_something_after_the_session_starts_no_other():
    answer = subprocess.run([sys.executable, "-c", AFTERWARDS], capture_output=True, text=True, check=False)
    assert "Ray has not been started yet" in answer.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_gpus_are_hidden_as_long_as_a_session_lasts(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")

    def seen():
        return os.environ["CUDA_VISIBLE_DEVICES"]

    with ray_session(Runtime(store=str(tmp_path), device="cpu")):
        assert [seen(), ray.get(ray.remote(seen).remote())] == ["", ""]
    assert seen() == "3"


@pytest.mark.ray
@pytest.mark.slow
def test_ray_address_is_used_and_a_cluster_that_happens_to_run_is_not(tmp_path):
    path = write_grid(tmp_path, runtime=f"{{store: '{tmp_path}/store', workers: 100}}")
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        address = cluster.stdout.readline().strip()
        for extra, cpus in (({"RAY_ADDRESS": address}, 5), ({}, os.cpu_count())):
            answer = run(path, environment | extra)
            assert answer.returncode == 2, answer.stderr
            assert f"runtime.workers: 100 workers need 100 CPUs; this Ray has {cpus}" in answer.stderr
            assert "Traceback" not in answer.stderr
    finally:
        cluster.communicate("\n", timeout=60)
    answer = run(path, environment | {"RAY_ADDRESS": address})
    assert answer.returncode == 2
    assert f"RAY_ADDRESS: no cluster at {address}" in answer.stderr


def run(path, environment):
    main = "from kdray.cli import main; main()"
    command = [sys.executable, "-c", main, "run", str(path)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200, check=False)
