"""Cross-entropy on held-out rows and KL divergence from the teacher, both as sums over all response tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kdray.artifacts.rows import Rows
from kdray.data.collate import collate
from kdray.distill.labels import Signal
from kdray.distill.objective import Objective


@torch.no_grad()
def heldout_sums(
    student: Callable[..., tuple[Tensor, Tensor]],
    rows: Rows,
    batches: Sequence[Sequence[int]],
    signal: Signal | None,
    vocab_size: int,
    device: torch.device | str,
    start: int | None = None,
) -> Tensor:
    """[sum of CE, sum of KL(teacher || student), tokens] over the rows in `batches`, in nats and float64.

    KL is 0 without a signal, and at the temperature of its labels. `student` is a `Student`, or an engine that has
    one; an empty batch is run too, because the engines' collectives need every rank to take part. `start`: of an
    encoder-decoder, see `collate`.
    """
    temperature = signal.temperature if signal is not None else 1.0
    objective = Objective(0.0 if signal is None else 1.0, vocab_size, "forward_kl", temperature=temperature)
    sums = torch.zeros(3, dtype=torch.float64)
    for chosen in batches:
        batch = collate(rows, chosen, start).to(device)
        _, terms = student(objective, batch, signal.read(chosen) if signal else None)
        hard, divergence, _ = terms.tolist()
        sums += torch.tensor([hard, divergence / temperature**2, len(batch.labels)], dtype=torch.float64)
    return sums
