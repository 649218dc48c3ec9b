"""Cross-entropy against the teacher's distribution: equation 2 of the smoothed-KD paper, the default."""

from __future__ import annotations

from torch import Tensor

from kdray.distill.labels import Sparse
from kdray.spec import declare

DECLARED = declare.Loss(version=1, sparse=True, softmax_difference=True)


def cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    """CE(t, s) = -sum_v t[v] log s[v] in nats, t = softmax(teacher), s = softmax(student).

    The teacher's entropy is the least value; the difference is KL(t || s).

    Args:
        student: [N, V] logits.
        teacher: [N, V] logits.

    Returns:
        [N] nats.
    """
    return -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1)


def sparse(student: Tensor, teacher: Sparse) -> Tensor:
    """The same from weighted entries: the loss is linear in t, so an unbiased estimate of t gives one of it. [N]
    nats.
    """
    return -(teacher.weights * student.log_softmax(-1).gather(-1, teacher.ids)).sum(-1)
