"""Cross-entropy on held-out rows and KL divergence from the teacher, both as sums over all response tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kdray.data.collate import collate
from kdray.data.rows import Rows
from kdray.distill.fused import fused_sums
from kdray.distill.labels import Signal
from kdray.distill.objective import Objective
from kdray.models.head import ResponseModel


@torch.no_grad()
def heldout_sums(
    model: ResponseModel, rows: Rows, chosen: Sequence[int], signal: Signal | None, vocab_size: int, batch: int
) -> Tensor:
    """[sum of CE, sum of KL(teacher || student), tokens] over the rows `chosen`, in nats and float64.

    KL is 0 without a signal, and at the temperature of its labels. Rows are taken `batch` at a time in the given
    order; the model's device is used.
    """
    device = next(model.parameters()).device
    temperature = signal.temperature if signal is not None else 1.0
    objective = Objective(0.0 if signal is None else 1.0, vocab_size, "forward_kl", temperature=temperature)
    sums = torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(chosen), batch):
        part = [int(row) for row in chosen[start : start + batch]]
        tokens = collate(rows, part).to(device)
        hidden = model.hidden(tokens.input_ids, tokens.attention_mask, tokens.positions)
        of_part = fused_sums(objective, model.head, hidden, tokens.labels, signal.read(part) if signal else None)
        divergence = float(of_part.soft) / temperature**2
        sums += torch.tensor([float(of_part.hard), divergence, len(tokens.labels)], dtype=torch.float64)
    return sums
