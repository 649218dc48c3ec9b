"""The likeliest tokens alone, renormalised to one: what much of the literature keeps, for comparison with it.

Biased: the mass outside (in the mean over tokens recorded as `missing_mass`) is taken for zero, so the student
becomes more certain than the teacher is, and the nearer it comes to it the more the gradient points elsewhere
(arXiv 2503.16870). `sampled` has no such bias at the same size.
"""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor

from kdray.distill.labels import Sparse, Teacher, id_dtype
from kdray.models.head import Head
from kdray.spec import declare

DECLARED = declare.Form(
    version=1,
    tempered=True,
    kept=(
        declare.Kept("ids", "id", (declare.Param("k"),)),
        declare.Kept("log_probs", "float16", (declare.Param("k"),)),
        declare.Kept("tail", "float32"),
    ),
)


class TopK:
    def __init__(self, *, k: PositiveInt = 64) -> None:
        self.entries = k

    def keep(self, states: Tensor, teacher: Teacher, dice: torch.Generator) -> dict[str, Tensor]:
        """[N, k] ids, [N, k] log-probabilities, [N] the mass of all others."""
        log_q = teacher.log_probabilities(states)
        best, ids = log_q.topk(self.entries, 1)
        tail = (1 - best.exp().sum(1)).clamp(min=0)
        return {"ids": ids.to(id_dtype(log_q.shape[1])), "log_probs": best.half(), "tail": tail.float()}

    def labels(self, kept: dict[str, Tensor], head: Head | None) -> Sparse:
        weights = kept["log_probs"].float().softmax(1)
        return Sparse(kept["ids"].long(), weights, torch.special.entr(weights).sum(1))
