"""All logits of the vocabulary: for small ones. A token costs 2 V bytes in bfloat16, 98,304 for V = 49,152."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from kdray.distill.labels import LogitLabels, Teacher
from kdray.models.head import Head
from kdray.spec import declare

DECLARED = declare.Form(version=1, kept=(declare.Kept("logits", declare.Param("dtype"), ("vocabulary",)),))


class Logits:
    def __init__(self, *, dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16") -> None:
        self.dtype = dtype

    def keep(self, states: Tensor, teacher: Teacher, dice: torch.Generator) -> dict[str, Tensor]:
        """[N, V], less each token's largest: rounding is then finest where the probability is."""
        z = teacher.logits(states)
        return {"logits": (z - z.amax(1, keepdim=True)).to(getattr(torch, self.dtype))}

    def labels(self, kept: dict[str, Tensor], head: Head | None) -> LogitLabels:
        return LogitLabels(kept["logits"])
