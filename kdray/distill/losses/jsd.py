"""Generalised Jensen-Shannon divergence, as GKD uses it (arXiv 2306.13649, equation 1)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kdray.spec import declare
from kdray.spec.parameters import Share

DECLARED = declare.Loss(version=1)


def jsd(student: Tensor, teacher: Tensor, *, beta: Share = 0.5) -> Tensor:
    """beta KL(t || m) + (1 - beta) KL(s || m) with m = beta t + (1 - beta) s, in nats, from logits [N, V] each. [N]."""
    log_t, log_s = teacher.log_softmax(-1), student.log_softmax(-1)
    log_m = torch.logaddexp(log_t + math.log(beta), log_s + math.log1p(-beta))
    return (beta * log_t.exp() * (log_t - log_m) + (1 - beta) * log_s.exp() * (log_s - log_m)).sum(-1)
