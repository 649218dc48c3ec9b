"""The teacher's last hidden state after the final norm, with its output head kept once: exact up to rounding.

A token costs 2 d bytes in bfloat16 (1,152 for d = 576) where full logits cost 2 V (98,304 for V = 49,152).
Logits are recomputed as head(hidden), in the precision in which the student trains.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kdray.distill.labels import HiddenLabels, Teacher
from kdray.models.head import Head
from kdray.spec import declare

DECLARED = declare.Form(
    version=2,
    head=True,
    kept=(
        declare.Kept("hidden", declare.Param("dtype"), ("hidden",)),
        declare.Kept("scale", "float32", when={"dtype": "int8"}),
    ),
)
LARGEST = 127.0


class Hidden:
    def __init__(self, *, dtype: Literal["bfloat16", "float16", "float32", "int8"] = "bfloat16") -> None:
        self.dtype = dtype

    def keep(self, states: Tensor, teacher: Teacher, dice: torch.Generator) -> dict[str, Tensor]:
        """[N, d] states; in int8 with a scale per token, its largest entry / 127."""
        if self.dtype != "int8":
            return {"hidden": states.to(getattr(torch, self.dtype))}
        scale = states.float().abs().amax(1, keepdim=True).clamp(min=1e-12) / LARGEST
        return {"hidden": (states.float() / scale).round().to(torch.int8), "scale": scale}

    def labels(self, kept: dict[str, Tensor], head: Head | None) -> HiddenLabels:
        assert head is not None
        states = kept["hidden"]
        return HiddenLabels(states.float() * kept["scale"] if self.dtype == "int8" else states, head)
