"""Cross-entropy against the labels of the data."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def hard_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(z)[y] in nats.

    Args:
        logits: [N, V].
        labels: [N] token ids below V.

    Returns:
        [N] nats.
    """
    return F.cross_entropy(logits, labels, reduction="none")
