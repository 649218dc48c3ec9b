"""What a simulation is told of a cluster: its nodes, and how often one of them is lost."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from kdray.cost.cards import Card
from kdray.orchestration.resources import KIND, Resources, usable
from kdray.spec.errors import InputError
from kdray.spec.sections.running import Runtime

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
CORES = 8  # for each GPU; nothing that is simulated waits for one


@dataclass(frozen=True)
class Losses:
    """Every node is lost after a time drawn from an exponential distribution, in the mean `mttf` seconds."""

    mttf: float
    seed: int = 0


def seconds_of(text: str, field: str) -> float:
    """Of a duration such as 3h, 90m or 1.5d.

    Raises:
        InputError: it is none, or no time at all.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip().lower())
    if not found or not float(found[1]):
        raise InputError(field, f"'{text}'", "give a duration: 45s, 90m, 3h or 2d")
    return float(found[1]) * SECONDS[found[2]]


def resources_of(runtime: Runtime, nodes: int, gpus: int, card: Card) -> Resources:
    """What a run would find on so many nodes with so many GPUs each.

    Raises:
        InputError: there are none, or not enough for one point.
    """
    for field, found in (("--nodes", nodes), ("--gpus", gpus)):
        if found < 1:
            raise InputError(field, str(found), "1 or more")
    if runtime.device == "cpu":
        raise InputError("runtime.device", "cpu", "only GPUs have a price, and can be simulated")
    node = {"CPU": CORES * gpus, "GPU": gpus} | ({KIND + runtime.accelerator: 1} if runtime.accelerator else {})
    return replace(usable(runtime, [node] * nodes, "the cluster"), gpu_memory=int(card.memory))
