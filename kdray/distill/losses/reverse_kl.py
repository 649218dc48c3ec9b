"""KL(student || teacher): MiniLLM's mode-seeking direction, here over the data's own text."""

from __future__ import annotations

from torch import Tensor

from kdray.spec import declare

DECLARED = declare.Loss(version=1)


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """sum_v s[v] (log s[v] - log t[v]) in nats, from logits [N, V] each. [N]."""
    log_s = student.log_softmax(-1)
    return (log_s.exp() * (log_s - teacher.log_softmax(-1))).sum(-1)
