"""Weights, gradients and optimiser state in shards, one a rank (PyTorch's FSDP2); layers are gathered as they are
needed.

Checkpoints are torch.distributed.checkpoint's, which any number of ranks can read. What is gathered is float32, and
autocast rounds for the products as with DDP, so that the result does not depend on the engine. Its copies of weights
go with the layer: kept, they would hold the whole model in bfloat16 however it is shared.

Weights come from rank 0, as with DDP; the other ranks need none. They are given out layer by layer, each of which is
cut before the next: no rank but the first ever holds more than its shares and one layer.

Gradients are summed over ranks after every micro-batch, each rank keeping its share. To sum once a step saves links,
and costs every rank the gradient of the whole model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.utils import swap_tensors

from kdray.distill.student import Student
from kdray.spec import declare
from kdray.train.engines import Ranks, exported
from kdray.train.optimiser import adamw, move, settle
from kdray.train.settings import Settings

DECLARED = declare.Engine(version=1, beside=True)


class FSDP:
    layout = "fsdp"
    keeps_casts = False

    def __init__(self, student: Student, settings: Settings, ranks: Ranks, *, sum_once: bool = False) -> None:
        backbone: Any = student.model.backbone
        for part in (*backbone.layers, student):
            _give_out(part, ranks)
            fully_shard(part)
        register_fsdp_forward_method(student, "pack")
        assert isinstance(student, FSDPModule)
        self.student, self.clip = student, settings.clip or float("inf")
        self._sharded: FSDPModule = student
        self._sum_once, self._settings = sum_once, settings
        self._model = student.model.whole  # the student itself knows every weight by two names
        self.optimiser = adamw(student, settings)

    def __call__(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        return self.student(*arguments)

    def expect(self, *, last: bool) -> None:
        if self._sum_once:
            self._sharded.set_requires_gradient_sync(last)

    def backward(self, total: Tensor) -> None:
        total.backward()

    def step(self, lr: float) -> float:
        norm: Any = torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.clip)
        norm = float(norm.full_tensor())
        move(self.optimiser, lr, norm)
        return norm

    def state(self) -> dict[str, Any]:
        model, optimiser = get_state_dict(self._model, self.optimiser)
        frozen = {name for name, p in self._model.named_parameters(remove_duplicate=False) if not p.requires_grad}
        return {"model": {name: shard for name, shard in model.items() if name not in frozen}, "optimiser": optimiser}

    def write(self, state: dict[str, Any], folder: Path, ranks: Ranks) -> None:
        save(state, checkpoint_id=folder, process_group=ranks.group)

    def load(self, folder: Path) -> None:
        state, own = self.state(), [group["fused"] for group in self.optimiser.param_groups]
        load(state, checkpoint_id=folder)
        options = StateDictOptions(strict=False)  # what is frozen comes from the model's folder
        set_state_dict(
            self._model,
            self.optimiser,
            model_state_dict=state["model"],
            optim_state_dict=state["optimiser"],
            options=options,
        )
        settle(self.optimiser, own)

    def weights(self) -> dict[str, Tensor]:
        adapters = self._settings.rank is not None
        # Gathered weight by weight, for rank 0 alone; frozen ones are not gathered for nothing.
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=adapters)
        found = cast(dict[str, Tensor], get_model_state_dict(self._model, options=options))
        wanted = exported(self._model, self._settings)  # a frozen head comes under the other of its two names
        return {name: tensor for name, tensor in found.items() if name in wanted}


def _give_out(part: nn.Module, ranks: Ranks) -> None:
    """Put what rank 0 has of a part of the model on every rank's device, but for what is in shards already.

    Other ranks may have it on the `meta` device. What is one weight under two names stays one.
    """
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    for tensor in (*part.parameters(), *part.buffers()):
        if isinstance(tensor, DTensor):
            continue
        if tensor.is_meta:
            empty, weight = torch.empty_like(tensor, device=device), isinstance(tensor, nn.Parameter)
            swap_tensors(tensor, nn.Parameter(empty, tensor.requires_grad) if weight else empty)
        elif tensor.device != device:
            tensor.data = tensor.data.to(device)
        if ranks.world > 1:
            dist.broadcast(tensor.data, 0)
