"""AdamW over a model's trained parameters, and the learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kdray.spec import declare
from kdray.spec.components import load
from kdray.train.settings import Settings


def adamw(model: nn.Module, settings: Settings, *, fused: bool = True) -> torch.optim.AdamW:
    """Weight decay on matrices only: norms and biases are the vectors among the parameters. On GPUs in one kernel, if
    `fused`: a foreach step reads and writes everything several times.

    Raises:
        ValueError: no parameter is trained.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices, vectors = [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=settings.lr, fused=True if fused and on_gpus(trained) else None)


def on_gpus(parameters: Iterable[Tensor]) -> bool:
    """Whether all of them are there."""
    return all(parameter.device.type == "cuda" for parameter in parameters)


def restore(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put back a `state_dict`, also one from another kind of device: how steps are computed stays as it is here."""
    own = [group["fused"] for group in optimiser.param_groups]
    optimiser.load_state_dict(state)
    settle(optimiser, own)


def settle(optimiser: torch.optim.Optimizer, fused: Sequence[bool | None]) -> None:
    """Make each group fused or not, and put the counters of steps where it reads them: if fused beside the weights, if
    not on the CPU, since reading one would wait for the GPU at every weight.
    """
    for group, one in zip(optimiser.param_groups, fused, strict=True):
        group["fused"] = one
        for parameter in group["params"]:
            if "step" in (state := optimiser.state.get(parameter, {})):
                state["step"] = state["step"].to(parameter.device if one else "cpu")


def move(optimiser: torch.optim.Optimizer, lr: float, norm: float) -> None:
    """One step with `lr` and forget the gradients; no weight moves if the gradient's `norm` is not finite."""
    if math.isfinite(norm):
        for group in optimiser.param_groups:
            group["lr"] = lr
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def schedule(settings: Settings) -> Callable[[int, int], float]:
    """(step, total) -> factor on lr: linear warm-up, then the schedule over what is left."""
    curve, params = load(declare.Schedule, settings.schedule["name"]), settings.schedule["params"]

    def factor(step: int, total: int) -> float:
        warm = round(settings.warmup * total)
        if step < warm:
            return (step + 1) / warm
        return curve((step - warm) / max(total - warm, 1), **params)

    return factor
