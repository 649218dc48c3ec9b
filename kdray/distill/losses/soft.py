"""Cross-entropy against the teacher's distribution (equation 2 of the smoothed-KD paper)."""

from __future__ import annotations

from torch import Tensor


def soft_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """CE(softmax(z_t), softmax(z_s)) = -sum_v softmax(z_t)[v] log softmax(z_s)[v] in nats.

    No gradient flows to the teacher. The entropy of the teacher is the least value; the difference is KL(t || s).

    Args:
        student: [N, V] logits.
        teacher: [N, V] logits.

    Returns:
        [N] nats.
    """
    return -(teacher.detach().softmax(-1) * student.log_softmax(-1)).sum(-1)
