"""Cross-entropy on held-out rows and KL divergence from the teacher, both as means over all response tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from kdray.data.collate import collate
from kdray.data.rows import Rows
from kdray.distill.losses.hard import hard_cross_entropy
from kdray.distill.losses.soft import soft_cross_entropy
from kdray.models.head import ResponseModel


class Signal(Protocol):
    """Soft labels of any form: the teacher's logits [N, V] at the response tokens of the given rows."""

    def logits(self, rows: Sequence[int]) -> Tensor: ...


@torch.no_grad()
def heldout_sums(
    model: ResponseModel, rows: Rows, chosen: Sequence[int], signal: Signal | None, vocab_size: int, batch: int
) -> Tensor:
    """[sum of CE, sum of KL(teacher || student), tokens] over the rows `chosen`, in nats and float64.

    KL is 0 without a signal. Rows are taken `batch` at a time in the given order; the model's device is used.
    """
    device = next(model.parameters()).device
    sums = torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(chosen), batch):
        part = [int(row) for row in chosen[start : start + batch]]
        tokens = collate(rows, part).to(device)
        student = model(tokens.input_ids, tokens.attention_mask, tokens.positions)[:, :vocab_size].float()
        divergence = 0.0
        if signal is not None:
            teacher = signal.logits(part)[:, :vocab_size].to(device).float()
            divergence = (soft_cross_entropy(student, teacher) - soft_cross_entropy(teacher, teacher)).double().sum()
        hard = hard_cross_entropy(student, tokens.labels).double().sum()
        sums += torch.tensor([float(hard), float(divergence), len(tokens.labels)], dtype=torch.float64)
    return sums
