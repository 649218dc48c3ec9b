"""Total variation distance: half the absolute difference of the two distributions, between 0 and 1."""

from __future__ import annotations

from torch import Tensor

from kdray.spec import declare

DECLARED = declare.Loss(version=1)


def total_variation(student: Tensor, teacher: Tensor) -> Tensor:
    """sum_v |t[v] - s[v]| / 2, from logits [N, V] each. [N], no unit."""
    return (teacher.softmax(-1) - student.softmax(-1)).abs().sum(-1) / 2
