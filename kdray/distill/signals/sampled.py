"""The likeliest tokens with their probabilities, and draws from all others: an unbiased estimate in 200 bytes a token.

The draws are systematic (one uniform number a token, equal steps through the tail's cumulative distribution), so
that each token of the tail is drawn in proportion to its probability, with less variance than independent draws,
and every draw has the same weight, tail mass / draws. Unlike a renormalised top-k, the estimated gradient of
cross-entropy has the right mean.
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
        declare.Kept("ids", "id", (declare.Param("top"), declare.Param("draws"))),
        declare.Kept("log_probs", "float16", (declare.Param("top"),)),
        declare.Kept("tail", "float32"),
        declare.Kept("entropy", "float32"),
    ),
)


class Sampled:
    def __init__(self, *, top: PositiveInt = 32, draws: PositiveInt = 32) -> None:
        self.top, self.draws = top, draws

    @property
    def entries(self) -> int:
        return self.top + self.draws

    def keep(self, states: Tensor, teacher: Teacher, dice: torch.Generator) -> dict[str, Tensor]:
        """[N, top + draws] ids, [N, top] log-probabilities, [N] the mass of all others and the whole's entropy in
        nats.
        """
        log_q = teacher.log_probabilities(states)
        best, ids = log_q.topk(self.top, 1)
        q = log_q.exp()
        entropy = -(q * log_q).sum(1)
        tail = q.scatter(1, ids, 0.0).double()
        mass = tail.sum(1)
        reached = tail.cumsum(1)
        offset = torch.rand(len(states), 1, generator=dice, dtype=torch.float64).to(q.device)
        steps = torch.arange(self.draws, device=q.device, dtype=torch.float64)
        # right: the first entry that goes beyond the point, which an entry of no mass never is
        drawn = torch.searchsorted(reached, (steps + offset) / self.draws * reached[:, -1:], right=True)
        drawn = drawn.clamp_(max=q.shape[1] - 1)
        return {
            "ids": torch.cat([ids, drawn], 1).to(id_dtype(q.shape[1])),
            "log_probs": best.half(),
            "tail": mass.float(),
            "entropy": entropy.float(),
        }

    def labels(self, kept: dict[str, Tensor], head: Head | None) -> Sparse:
        shares = (kept["tail"] / self.draws)[:, None].expand(-1, self.draws)
        weights = torch.cat([kept["log_probs"].float().exp(), shares], 1)
        return Sparse(kept["ids"].long(), weights / weights.sum(1, keepdim=True), kept["entropy"])
