"""Every rank holds the whole model (PyTorch's DistributedDataParallel); the default, also for one rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from kdray.distill.student import Student
from kdray.spec import declare
from kdray.train.engines import Ranks, exported
from kdray.train.optimiser import adamw, move, restore
from kdray.train.settings import Settings

DECLARED = declare.Engine(version=1, whole=True, encoder_decoder=True, beside=True)
WEIGHTS, OPTIMISER = "weights.safetensors", "optimiser.pt"


class DDP:
    layout = "ddp"
    keeps_casts = True

    def __init__(self, student: Student, settings: Settings, ranks: Ranks) -> None:
        self.student, self.ranks, self.clip = student, ranks, settings.clip or float("inf")
        self._settings, self.optimiser = settings, adamw(student, settings)
        # Gradients lie in the buckets that are sent: copies of their own would take four more bytes a parameter.
        several = ranks.world > 1
        self._replica = DistributedDataParallel(student, gradient_as_bucket_view=True) if several else student

    def __call__(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        return self._replica(*arguments)

    def expect(self, *, last: bool) -> None:
        if isinstance(self._replica, DistributedDataParallel):
            self._replica.require_backward_grad_sync = last

    def backward(self, total: Tensor) -> None:
        total.backward()

    def step(self, lr: float) -> float:
        norm = float(torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.clip))
        move(self.optimiser, lr, norm)
        return norm

    def state(self) -> dict[str, Any]:
        if self.ranks.rank:
            return {}
        named = self.student.model.whole.named_parameters()  # what is frozen comes from the model's folder
        weights = {name: p.detach() for name, p in named if p.requires_grad}
        return {"weights": weights, "optimiser": self.optimiser.state_dict()}

    def write(self, state: dict[str, Any], folder: Path, ranks: Ranks) -> None:
        if state:
            save_file({name: tensor.contiguous() for name, tensor in state["weights"].items()}, folder / WEIGHTS)
            torch.save(state["optimiser"], folder / OPTIMISER)

    def load(self, folder: Path) -> None:
        model, saved = self.student.model.whole, load_file(folder / WEIGHTS)
        own = model.state_dict(keep_vars=True)
        if unexpected := saved.keys() - own.keys():
            raise ValueError(f"{folder} holds weights that the model lacks: {sorted(unexpected)}")
        kept = {
            name: tensor for name, tensor in saved.items() if own[name].requires_grad
        }  # some hold frozen weights too
        found = {id(own[name]) for name in kept}  # not by name: of tied weights any name will do
        if missing := [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in found]:
            raise ValueError(f"{folder} lacks weights that are trained: {missing}")
        model.load_state_dict(kept, strict=False)
        device = next(self.student.parameters()).device
        restore(self.optimiser, torch.load(folder / OPTIMISER, weights_only=True, map_location=device))

    def weights(self) -> dict[str, Tensor]:
        if self.ranks.rank:
            return {}
        return {name: p.detach() for name, p in exported(self.student.model.whole, self._settings).items()}
