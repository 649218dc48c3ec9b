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
from tests.orchestration.nodes import RAY, nodes, wait_until
from tests.orchestration.test_cluster import kdray
from tests.tiny import write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow]
# Says which nodes there are besides the head.
LIST = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False)
print(*(node["NodeID"] for node in ray.nodes() if "node:__internal_head__" not in node["Resources"]))
"""


def test_a_point_leaves_a_node_that_is_drained_and_loses_no_step(tmp_path: Path) -> None:
    path = write_grid(
        tmp_path,
        teacher="null",
        train="{steps: 400}",
        axes="{lr: [3.0e-3, 1.0e-3], batch: [4], alpha: [0]}",
        score="{tasks: [heldout_loss], references: []}",
        runtime=f"{{store: '{tmp_path}/store', checkpoint_minutes: 60}}",
    )
    store = Store(load_grid(path).runtime.store)
    plan = make_plan(load_grid(path), Outer(store.root))
    attempts = [store.folder(point.train.key) / "attempt-001" for point in plan.points]
    with nodes(RAY_AUTH_MODE="disabled") as cluster:
        cluster.head("--num-cpus=1")  # so one of the two points is on the other node
        cluster.add("--num-cpus=1")
        run = kdray("run", path, env=cluster.environment | {"RAY_ADDRESS": cluster.address}, cwd=tmp_path)
        wait_until(lambda: all(count_steps(attempt) >= 3 for attempt in attempts), run)
        listed = subprocess.run(
            [sys.executable, "-c", LIST, cluster.address], capture_output=True, text=True, check=True
        )
        told = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot", "--deadline-remaining-seconds=120"]
        drain = [str(RAY), "drain-node", f"--address={cluster.address}", f"--node-id={listed.stdout.split()[-1]}"]
        subprocess.run([*drain, *told], env=cluster.environment, check=True, capture_output=True)
        written = wait_until(lambda: [*store.root.glob("train/*/attempt-001/checkpoint-*/manifest.json")], run)
        output, _ = run.communicate(timeout=600)
    assert run.returncode == 0, output
    assert all(step.state(store) == "done" for step in plan.steps())
    [manifest] = written
    step = int(manifest.parent.name.rpartition("-")[2])
    [moved] = [made for p in plan.points if (made := store.get(p.train.key)) and made.facts["resumed_from_step"]]
    assert moved.path == manifest.parents[1]
    assert moved.facts["resumed_from_step"] == step < 400
    taken = [json.loads(line)["step"] for line in (moved.path / TIMES).read_text().splitlines()]
    assert taken == list(range(1, 401)), "each step once"
