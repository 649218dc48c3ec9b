"""SimPO (Meng et al. 2024, arXiv 2405.14734, equation 6): of two responses to a prompt the chosen one is made likelier
than the rejected one, without a reference model.

    L = -log sigmoid(beta * (log p(chosen) / |chosen| - log p(rejected) / |rejected|) - gamma)

with log-probabilities in nats, |.| in tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kdray.data.collate import Batch
from kdray.models.head import Head

CHUNK = 512  # tokens whose logits are there at a time


@dataclass(frozen=True)
class SimPO:
    """What is minimised, pair by pair.

    Args:
        beta: scale of the difference, > 0.
        gamma: margin by which the scaled difference is to be above 0.
        vocab_size: how many columns of the logits are real tokens; the others take no part.
    """

    beta: float
    gamma: float
    vocab_size: int

    def __call__(self, chosen: Tensor, rejected: Tensor) -> Tensor:
        """[P] mean log-probabilities a token, in nats -> [P] losses."""
        return -F.logsigmoid(self.beta * (chosen - rejected) - self.gamma)

    def sums(self, head: Head, hidden: Tensor, batch: Batch, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """(loss x scale, [loss, margin, won]), summed over pairs: the rows of a padded batch, a chosen response and the
        rejected one behind it; a row that is alone counts no token. `margin` is the difference of the means in nats a
        token, `won` 1 where it is above 0.
        """
        means = self.means(head, hidden, batch)
        chosen, rejected = means[: len(means) // 2 * 2].reshape(-1, 2).unbind(1)
        loss, margin = self(chosen, rejected).sum(), (chosen - rejected).detach()
        return loss * scale, torch.stack([loss.detach(), margin.sum(), (margin > 0).to(margin.dtype).sum()])

    def means(self, head: Head, hidden: Tensor, batch: Batch) -> Tensor:
        """[N, d] hidden states at the N response tokens of B padded rows -> [B] means of their log-probabilities."""

        def of(some: Tensor, wanted: Tensor) -> Tensor:
            logits = head(some)[:, : self.vocab_size]
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            return logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(1)

        chunks = zip(hidden.split(CHUNK), batch.labels.split(CHUNK), strict=True)
        logs = torch.cat([checkpoint(of, some, wanted, use_reentrant=False) for some, wanted in chunks])
        rows = batch.positions[:, 0]
        sums = torch.zeros(len(batch.input_ids), dtype=logs.dtype, device=logs.device).index_add(0, rows, logs)
        return sums / torch.bincount(rows, minlength=len(sums)).clamp(min=1)
