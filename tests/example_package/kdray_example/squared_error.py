"""Squared error of the probabilities: the squared distance of two distributions, between 0 and 2."""

from torch import Tensor

from kdray.spec import declare

DECLARED = declare.Loss(version=1)


def squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """sum_v (t[v] - s[v])^2, from logits [N, V] each. [N], no unit."""
    return (teacher.softmax(-1) - student.softmax(-1)).square().sum(-1)
