"""What must hold of a cluster before any work: strangers are kept out, and every node sees the same store.

A task on each node looks, so that what is found is what workers will find.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kdray.spec.errors import InputError
from kdray.store import io

ANSWER_SECONDS = 120  # a node's first process unpacks the code and starts Python


def check_cluster(store: Path, *, insecure: bool) -> None:
    """Look at all nodes of the cluster that this process is connected to.

    Raises:
        InputError: several hosts without token authentication (unless `insecure`), a node that does not answer, or one
            that does not see what is in `store` or writes where nobody sees it.
    """
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    probe = store / "scratch" / f"probe-{uuid.uuid4().hex}"
    try:
        io.put_json(probe / "question", probe.name, durable=False)
        answers = _ask(nodes, probe)
        hosts = set(nodes.values())
        if len(hosts) > 1 and not insecure and not all(token for _, token in answers.values()):
            raise InputError(
                "RAY_ADDRESS",
                f"{len(hosts)} hosts without token authentication: whoever reaches a port of theirs runs what he likes there",
                "start every node with RAY_AUTH_MODE=token (docs/cluster.md), or pass --insecure-cluster",
            )
        blind = [nodes[id] for id, (sees, _) in answers.items() if not sees or not (probe / id).is_file()]
    finally:
        io.delete(probe)
    if blind:
        found = f"{store} on {', '.join(sorted(blind))} is not the folder of that name here ({len(blind)} of {len(nodes)} nodes)"
        raise InputError("runtime.store", found, "put it on a file system that all nodes mount at the same path")


def smallest_gpu(nodes: list[str]) -> int | None:
    """The memory in bytes of the smallest GPU of the nodes with these ids; None if one cannot tell."""
    look: Any = ray.remote(num_cpus=0, num_gpus=0.001, max_retries=0)(_gpu_memory)
    tasks = [look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(id, soft=False)).remote() for id in nodes]
    try:
        return min(ray.get(tasks, timeout=ANSWER_SECONDS))
    except (GetTimeoutError, RayError):
        return None


def _gpu_memory() -> int:
    import torch

    return min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))


def _ask(nodes: dict[str, str], probe: Path) -> dict[str, tuple[bool, bool]]:
    """By node: whether it sees the probe, and whether it demands a token."""
    look: Any = ray.remote(num_cpus=0, max_retries=0)(_look)
    tasks = {id: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(id, soft=False)).remote(probe, id) for id in nodes}
    answers = {}
    for id, task in tasks.items():
        try:
            answers[id] = ray.get(task, timeout=ANSWER_SECONDS)
        except (GetTimeoutError, RayError) as error:
            reason = f"no answer in {ANSWER_SECONDS} s" if isinstance(error, GetTimeoutError) else str(error).strip().splitlines()[-1]
            raise InputError("RAY_ADDRESS", f"the node {nodes[id]} runs nothing ({reason})", "look at it with `ray status`") from None
    return answers


def _look(probe: Path, node: str) -> tuple[bool, bool]:
    """Runs on a node: answer the probe in its folder."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    token = is_token_auth_enabled()  # what this node's raylet told its workers; a worker without could not have connected
    if io.read_json(probe / "question") != probe.name:
        return False, token
    try:
        io.put_json(probe / node, node, durable=False)
    except OSError:
        return False, token
    return True, token
