"""What must hold of a cluster before any work: strangers are kept out, every node sees the same store and has what it
needs.

A task on each node looks, so that what is found is what workers will find.
"""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from kdray.check.machine import Need
from kdray.spec.errors import InputError
from kdray.store import io

ANSWER_SECONDS = 120  # a node's first process unpacks the code and starts Python


@dataclass(frozen=True)
class NodeAnswer:
    """What a node says: whether it sees the probe, whether it demands a token, and what it lacks, with how it says
    so.
    """

    sees: bool
    token: bool
    lacks: Mapping[Need, str]


def check_cluster(store: Path, needs: Mapping[str, Sequence[Need]], *, insecure: bool) -> None:
    """Look at all nodes of the cluster that this process is connected to; `needs` are what some must have, by their
    ids.

    Raises:
        InputError: several hosts without token authentication (unless `insecure`), a node that does not answer, or one
            that does not see what is in `store`, writes where nobody sees it, or lacks something.
    """
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    probe = store / "scratch" / f"probe-{uuid.uuid4().hex}"
    try:
        io.put_json(probe / "question", probe.name, durable=False)
        answers = _ask(nodes, probe, needs)
        hosts = set(nodes.values())
        if len(hosts) > 1 and not insecure and not all(answer.token for answer in answers.values()):
            raise InputError(
                "RAY_ADDRESS",
                f"{len(hosts)} hosts without token authentication: whoever reaches a port of theirs runs what he likes"
                " there",
                "start every node with RAY_AUTH_MODE=token (docs/cluster.md), or pass --insecure-cluster",
            )
        blind = [nodes[id] for id, answer in answers.items() if not answer.sees or not (probe / id).is_file()]
    finally:
        io.delete(probe)
    if blind:
        found = (
            f"{store} on {', '.join(sorted(blind))} is not the folder of that name here ({len(blind)} of {len(nodes)}"
            " nodes)"
        )
        raise InputError("runtime.store", found, "put it on a file system that all nodes mount at the same path")
    for need in dict.fromkeys(need for answer in answers.values() for need in answer.lacks):
        lacking = {nodes[id]: answer.lacks[need] for id, answer in answers.items() if need in answer.lacks}
        found = f"{next(iter(lacking.values()))} on {', '.join(sorted(lacking))} ({len(lacking)} of {len(nodes)} nodes)"
        raise InputError(need.field, found, need.remedy)


def smallest_gpu(nodes: list[str]) -> int | None:
    """The memory in bytes of the smallest GPU of the nodes with these ids; None if one cannot tell.

    Ray is asked for no GPU: another run may have all of them.
    """
    look: Any = ray.remote(num_cpus=0, max_retries=0)(_gpu_memory)
    tasks = [look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(id, soft=False)).remote() for id in nodes]
    try:
        return min(ray.get(tasks, timeout=ANSWER_SECONDS))
    except (GetTimeoutError, RayError):
        return None


def _gpu_memory() -> int:
    """Of the smallest GPU of this node, as its driver says, which takes no memory of one."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]  # in MiB
    told = subprocess.run(query, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS / 2).stdout
    return min(int(line) for line in told.splitlines()) << 20


def _ask(nodes: dict[str, str], probe: Path, needs: Mapping[str, Sequence[Need]]) -> dict[str, NodeAnswer]:
    """What the nodes say, by id."""
    look: Any = ray.remote(num_cpus=0, max_retries=0)(_look)
    on = {id: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(id, soft=False)) for id in nodes}
    tasks = {id: task.remote(probe, id, needs.get(id, ())) for id, task in on.items()}
    answers = {}
    for id, task in tasks.items():
        try:
            answers[id] = ray.get(task, timeout=ANSWER_SECONDS)
        except (GetTimeoutError, RayError) as error:
            reason = (
                f"no answer in {ANSWER_SECONDS} s"
                if isinstance(error, GetTimeoutError)
                else str(error).strip().splitlines()[-1]
            )
            raise InputError(
                "RAY_ADDRESS", f"the node {nodes[id]} runs nothing ({reason})", "look at it with `ray status`"
            ) from None
    return answers


def _look(probe: Path, node: str, needs: Sequence[Need]) -> NodeAnswer:
    """Runs on a node: answer the probe in its folder."""
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    token = (
        is_token_auth_enabled()
    )  # what this node's raylet told its workers; a worker without could not have connected
    lacks = {need: lack for need in needs if (lack := need.lack())}
    if io.read_json(probe / "question") != probe.name:
        return NodeAnswer(False, token, lacks)
    try:
        io.put_json(probe / node, node, durable=False)
    except OSError:
        return NodeAnswer(False, token, lacks)
    return NodeAnswer(True, token, lacks)
