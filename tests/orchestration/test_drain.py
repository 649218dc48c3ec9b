"""A point whose node is about to be taken away, as Ray is told of a spot instance."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kdray.artifacts.curve import TIMES, count_steps
from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.store import Outer, Store
from tests.orchestration.nodes import nodes, wait_until
from tests.orchestration.test_cluster import kdray
from tests.tiny import write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly]
STEPS = 1200  # some 20 seconds: it is told of a node, in a poll or two, before it ends
# Tells the cluster at an address, as soon as there is a line to read, that the node besides its head will go.
DRAIN = """
import ray, sys, time
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION
ray.init(address=sys.argv[1], log_to_driver=False)
[node] = [each["NodeID"] for each in ray.nodes() if "node:__internal_head__" not in each["Resources"]]
print("ready", flush=True)
sys.stdin.readline()
soon = int(1000 * (time.time() + 600))
accepted, _ = GcsClient(address=sys.argv[1]).drain_node(node, DRAIN_NODE_REASON_PREEMPTION, "spot", soon)
sys.exit(not accepted)
"""


def test_a_point_leaves_a_node_that_is_drained_and_loses_no_step(tmp_path: Path) -> None:
    path = write_grid(
        tmp_path,
        teacher="null",
        train=f"{{steps: {STEPS}}}",
        axes="{lr: [3.0e-3], batch: [16], alpha: [0]}",
        score="{tasks: [heldout_loss], references: []}",
        runtime=f"{{store: '{tmp_path}/store', checkpoint_minutes: 60}}",
    )
    store = Store(load_grid(path).runtime.store)
    plan = make_plan(load_grid(path), Outer(store.root))
    attempt = store.folder(plan.points[0].train.key) / "attempt-001"
    with nodes(RAY_AUTH_MODE="disabled", RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S="0.5") as cluster:
        cluster.head("--num-cpus=0")
        cluster.add("--num-cpus=1")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": cluster.environment}
        drain = subprocess.Popen([sys.executable, "-c", DRAIN, cluster.address], **pipes)
        assert drain.stdout
        assert drain.stdout.readline() == "ready\n"
        run = kdray("run", path, env=cluster.environment | {"RAY_ADDRESS": cluster.address}, cwd=tmp_path)
        wait_until(lambda: count_steps(attempt) >= 3, run)
        drain.communicate("\n", timeout=60)
        assert drain.returncode == 0
        [written] = wait_until(lambda: [*attempt.glob("checkpoint-*/manifest.json")], run)
        cluster.add("--num-cpus=1")
        output, _ = run.communicate(timeout=600)
    assert run.returncode == 0, output
    assert all(step.state(store) == "done" for step in plan.steps())
    made = store.get(plan.points[0].train.key)
    assert made
    assert written.parent.name == f"checkpoint-{made.facts['resumed_from_step']:08d}"
    taken = [json.loads(line)["step"] for line in (made.path / TIMES).read_text().splitlines()]
    assert taken == list(range(1, STEPS + 1)), "each step once"
