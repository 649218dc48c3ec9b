"""What of a cluster may be used, and how much of it one point gets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdray.cost.share import SHARE, points_beside
from kdray.spec.errors import InputError
from kdray.spec.sections.running import Runtime

ROOM = 0.8  # of a GPU's memory for a model's weights; the rest is for states and logits
LARGEST_NODE = 8  # GPUs; a point with more workers is spread over nodes
PARTS = 10_000  # of a GPU, that Ray counts in
KIND = "accelerator_type:"  # what Ray puts before the name of a node's GPUs among its resources


@dataclass(frozen=True)
class Node:
    """What may be used of a machine of the cluster."""

    cpus: int
    gpus: int


@dataclass(frozen=True)
class Resources:
    """What the cluster has, and what a point gets of it."""

    nodes: tuple[Node, ...]
    workers: int  # of one point
    accelerator: str | None = None  # the only type of GPU counted, and asked for
    gpu_memory: int | None = None  # bytes of the smallest GPU; None where nobody could tell
    beside: int | None = None  # units that answer and score while points train, where that is wanted
    share: float = SHARE  # of all GPUs that does, where it is not
    per_gpu: int = 1  # points of one worker that share a GPU: units are then so many equal parts of each

    @property
    def cpus(self) -> int:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> int:
        return sum(node.gpus for node in self.nodes)

    @property
    def units(self) -> list[int]:
        """By node: what workers are counted in, GPUs or parts of them if there are any, else cores."""
        return [node.gpus * self.per_gpu if self.gpus else node.cpus for node in self.nodes]

    @property
    def concurrent_points(self) -> int:
        return (
            sum(units // self.workers for units in self.units) if self.on_one_node else sum(self.units) // self.workers
        )

    @property
    def points_beside(self) -> int:
        """Points that train at once while others are scored; cores are shared by both."""
        fit = self.concurrent_points
        if not self.gpus:
            return fit
        # Of shared GPUs whole ones are left to scoring: a model may need one.
        return self.per_gpu * points_beside(fit // self.per_gpu, self.gpus, self.workers, self.share, self.beside)

    def scoring(self, points: int) -> int:
        """Units that answer and score while so many points are left to train: in the end all of them.

        Without GPUs they share half of the cores, or as many as wanted, with points.
        """
        if not points:
            return sum(self.units)
        if not self.gpus:
            return max(1, self.cpus // 2) if self.beside is None else self.beside
        return sum(self.units) - min(points, self.points_beside) * self.workers

    @property
    def on_one_node(self) -> bool:
        """Whether the workers of a point share a machine."""
        return self.workers <= LARGEST_NODE

    def actors(self, gpus: int = 1, room: int | None = None) -> int:
        """Processes that answer or score side by side: one for so many GPUs of a node, or parts of them, or without
        GPUs one a core; of all units or, node by node, so many.
        """
        left, count = sum(self.units) if room is None else room, 0
        for units in sorted(self.units, reverse=True):
            here = min(units, max(0, left))
            left, count = left - here, count + here // gpus
        return count

    def gpus_for(self, weights: int) -> int:
        """How many GPUs hold a model of so many bytes, to answer or be scored."""
        return max(1, math.ceil(weights / (ROOM * self.gpu_memory))) if self.gpu_memory else 1

    def units_for(self, gpus: int, memory: float | None) -> int:
        """What an actor takes, in units, whose model needs so many GPUs: a part of one where that much `memory` (bytes)
        has room in it, and all of it where nobody could tell. A GPU has room for a whole number of such parts.
        """
        if gpus > 1 or self.per_gpu == 1 or not memory or not self.gpu_memory:
            return gpus * self.per_gpu
        needed = memory * self.per_gpu / (ROOM * self.gpu_memory)
        return next((n for n in range(1, self.per_gpu) if n >= needed and self.per_gpu % n == 0), self.per_gpu)

    def asked(self, units: int) -> float:
        """GPUs to ask Ray for, for so many units: whole ones, or a part of one that Ray can count, in ten-thousandths,
        rounded down so that all parts of a GPU fit on it.
        """
        whole, rest = divmod(units, self.per_gpu)
        return whole if not rest else PARTS * units // self.per_gpu / PARTS

    @property
    def teacher_threads(self) -> int:
        """Cores for each worker of the teacher, which trains alone but must fit on one node."""
        largest = max(node.cpus for node in self.nodes)
        return max(1, min(16, self.cpus // self.workers, largest // min(self.workers, LARGEST_NODE)))


def usable(runtime: Runtime, nodes: Sequence[Mapping[str, float]], whose: str = "this Ray") -> Resources:
    """What `runtime` may use of nodes with these resources.

    Raises:
        InputError: not enough for one point.
    """
    wanted = runtime.accelerator
    counted = [
        {**node, "GPU": 0} if runtime.device == "cpu" or (wanted and KIND + wanted not in node) else node
        for node in nodes
    ]
    workers = 1 if runtime.workers == "auto" else runtime.workers
    each = tuple(Node(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in counted)
    beside = None if runtime.beside == "auto" else runtime.beside
    resources = Resources(each, workers, wanted, beside=beside)
    if wanted and not resources.gpus:
        types = sorted(
            {name.removeprefix(KIND) for node in nodes if node.get("GPU") for name in node if name.startswith(KIND)}
        )
        raise InputError(
            "runtime.accelerator", f"{wanted}, which this Ray has none of", f"it has {', '.join(types) or 'no GPU'}"
        )
    if runtime.device == "gpu" and not resources.gpus:
        raise InputError("runtime.device", "gpu, but this Ray has none", "use auto or cpu, or a cluster with GPUs")
    if resources.concurrent_points == 0:
        unit = f"{wanted or ''} GPUs".strip() if resources.gpus else "CPUs"
        found, have = f"{workers} workers need {workers} {unit}", f"{whose} has {sum(resources.units)}"
        if sum(resources.units) >= workers:
            found, have = f"{found} on one node", f"{have}, at most {max(resources.units)} on a node"
        raise InputError("runtime.workers", found, have)
    have = sum(resources.units)
    if beside and (resources.points_beside < 1 or beside > have):
        unit = "GPUs" if resources.gpus else "cores"
        raise InputError("runtime.beside", f"{beside} {unit} beside points of {workers}", f"{whose} has {have} in all")
    return resources
