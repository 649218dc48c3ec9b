"""How the ranks share one model: an engine a file, chosen under `runtime`, with the same result but for rounding.

Losses reach an engine as sums over a rank's tokens divided by (tokens of the whole batch / ranks), because every
engine averages gradients over ranks where their sum is wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kdray.distill.student import Student
from kdray.spec import declare
from kdray.spec.components import load
from kdray.train.settings import Settings


@dataclass(frozen=True)
class Ranks:
    """This process among those that share every batch."""

    rank: int = 0
    world: int = 1
    group: dist.ProcessGroup | None = None  # in which they talk; None: that of all training

    def apart(self) -> Ranks:
        """The same ranks in a group of their own, over the network of CPUs: a thread that talks must not come between
        what training sends. To be called on all of them alike.
        """
        return replace(self, group=dist.new_group(backend="gloo")) if dist.is_initialized() else self

    def sum(self, values: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """The element-wise sum over all ranks, on the CPU; the collective runs on `device`."""
        if self.world > 1:
            values = values.to(device)
            dist.all_reduce(values, group=self.group)
        return values.cpu()

    def agree(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.world == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, group=self.group)
        return values[0]

    def gather(self, value: dict[Any, Any]) -> dict[Any, Any]:
        """What all ranks have, in one, on every rank."""
        if self.world == 1:
            return value
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.group)
        return {key: found for one in values for key, found in one.items()}

    def wait(self) -> None:
        """For all ranks to come here."""
        if self.world > 1:
            dist.barrier(self.group)


class Engine(Protocol):
    """A student with its optimiser, spread over ranks. All methods but `step`'s lr are called alike on every rank."""

    student: Student
    layout: str  # of its checkpoints: another one cannot be read
    keeps_casts: bool  # whether autocast's copies of weights may stay to the end of a forward pass

    def __call__(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        """`Student.forward`."""
        ...

    def expect(self, *, last: bool) -> None:
        """Say before a forward pass whether its micro-batch is the step's last, with which the ranks exchange
        gradients.
        """
        ...

    def backward(self, total: Tensor) -> None:
        """Add the gradient of a micro-batch."""
        ...

    def step(self, lr: float) -> float:
        """Clip, move the weights, forget the gradients; the gradient's norm before clipping.

        Not finite: no weight moves.
        """
        ...

    def state(self) -> dict[str, Any]:
        """The trained weights and the optimiser's state, as far as this rank writes them, where they are: steps change
        them. Nothing of an engine that writes them by itself.
        """
        ...

    def write(self, state: dict[str, Any], folder: Path, ranks: Ranks) -> None:
        """Write `state`, or a copy of it, into files of this rank; `ranks` may talk meanwhile."""
        ...

    def load(self, folder: Path) -> None:
        """Put back what was written."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The Hugging Face model's whole state or, where adapters are trained, those alone, on rank 0; the others get
        nothing. They are where the model is, and steps change them, or gathered in main memory.
        """
        ...


def exported(model: nn.Module, settings: Settings) -> dict[str, Tensor]:
    """What an export needs of a model, on its device: adapters are merged into the weights in the model's folder."""
    state = model.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in state.items() if settings.rank is None or tensor.requires_grad}


def make_engine(use: Mapping[str, Any], student: Student, settings: Settings, ranks: Ranks) -> Engine:
    """The engine `{name, params}` around a student on its device, where `fsdp` will put it if it is elsewhere."""
    return load(declare.Engine, use["name"])(student, settings, ranks, **use["params"])
