"""Universal logit distillation: the distance of both models' probabilities in falling order, whatever their tokens are.

Boizard et al. 2024 (arXiv 2402.12030), equation 5: the closed form of the Wasserstein-1 distance between distributions
over unrelated vocabularies when every pair of tokens costs the same.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from kdray.spec import declare

DECLARED = declare.Loss(version=1, any_vocabulary=True)


def uld(student: Tensor, teacher: Tensor) -> Tensor:
    """sum_i |t_(i) - s_(i)| over the sorted probabilities, the shorter ones padded with zeros, from logits [N, V] and
    [N, W]. [N], no unit; between 0 and 2.
    """
    ours, theirs = (logits.softmax(-1).sort(-1, descending=True).values for logits in (student, teacher))
    width = max(ours.shape[-1], theirs.shape[-1])
    ours, theirs = (F.pad(sorted_, (0, width - sorted_.shape[-1])) for sorted_ in (ours, theirs))
    return (theirs - ours).abs().sum(-1)
