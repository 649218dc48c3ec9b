"""AdamW over a model's trained parameters, and the learning rate at each step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from kdray.spec import declare
from kdray.spec.components import load
from kdray.train.settings import Settings


def adamw(model: nn.Module, settings: Settings) -> torch.optim.AdamW:
    """Weight decay on matrices only: norms and biases are the vectors among the parameters.

    Raises:
        ValueError: no parameter is trained.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices, vectors = [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.lr)


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
