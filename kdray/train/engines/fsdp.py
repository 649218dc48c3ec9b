"""Weights, gradients and optimiser state in shards, one a rank (PyTorch's FSDP2); layers are gathered as they are
needed.

Checkpoints are torch.distributed.checkpoint's, which any number of ranks can read. What is gathered is float32, and
autocast rounds for the products as with DDP, so that the result does not depend on the engine. Its copies of weights
go with the layer: kept, they would hold the whole model in bfloat16 however it is shared.

Gradients are summed over ranks after every micro-batch, each rank keeping its share. To sum once a step saves links,
and costs every rank the gradient of the whole model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.fsdp import FSDPModule, fully_shard

from kdray.distill.student import Student
from kdray.spec import declare
from kdray.train.engines import Ranks, exported
from kdray.train.optimiser import adamw, move, settle
from kdray.train.settings import Settings

DECLARED = declare.Engine(version=1)


class FSDP:
    layout = "fsdp"
    keeps_casts = False

    def __init__(self, student: Student, settings: Settings, ranks: Ranks, *, sum_once: bool = False) -> None:
        backbone: Any = student.model.backbone
        for layer in backbone.layers:
            fully_shard(layer)
        fully_shard(student)
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

    def save(self, folder: Path) -> None:
        save(self._state(), checkpoint_id=folder)

    def load(self, folder: Path) -> None:
        state, own = self._state(), [group["fused"] for group in self.optimiser.param_groups]
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

    def _state(self) -> dict[str, Any]:
        model, optimiser = get_state_dict(self._model, self.optimiser)
        frozen = {name for name, p in self._model.named_parameters(remove_duplicate=False) if not p.requires_grad}
        return {"model": {name: shard for name, shard in model.items() if name not in frozen}, "optimiser": optimiser}
