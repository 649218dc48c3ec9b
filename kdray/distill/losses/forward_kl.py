"""KL(teacher || student): cross-entropy less the teacher's entropy, so the same gradient and zero at equality."""

from __future__ import annotations

from torch import Tensor

from kdray.distill.labels import Sparse
from kdray.distill.losses import cross_entropy
from kdray.spec import declare

DECLARED = declare.Loss(version=1, sparse=True, softmax_difference=True, less_entropy=True)


def forward_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """sum_v t[v] (log t[v] - log s[v]) in nats, from logits [N, V] each. [N]."""
    log_t = teacher.log_softmax(-1)
    return (log_t.exp() * (log_t - student.log_softmax(-1))).sum(-1)


def sparse(student: Tensor, teacher: Sparse) -> Tensor:
    """The same from weighted entries and the kept entropy: an estimate, which may fall below zero. [N] nats."""
    return cross_entropy.sparse(student, teacher) - teacher.entropy
