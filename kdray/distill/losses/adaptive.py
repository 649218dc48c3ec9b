"""Context-adaptive smoothing: the teacher's distribution counts more where the teacher itself is unsure.

The smoothed-KD paper's conclusion names it as future work: how much a label ought to be smoothed depends on its
context, and the teacher's entropy says by how much. As in entropy-aware distillation (Kwon et al. 2020, "Adaptive
knowledge distillation based on entropy") a token's weight is a function of that entropy; here it rises with it, from 0
where the teacher is certain, and the hard label is right as it stands, to 1 at `nats` and above.
"""

from __future__ import annotations

import torch
from pydantic import PositiveFloat
from torch import Tensor

from kdray.distill.labels import Sparse
from kdray.distill.losses import cross_entropy as plain
from kdray.spec import declare

DECLARED = declare.Loss(version=1, sparse=True)


def adaptive(student: Tensor, teacher: Tensor, *, nats: PositiveFloat = 1.0) -> Tensor:
    """min(H(t) / nats, 1) CE(t, s), with H the entropy of t = softmax(teacher), from logits [N, V] each. [N] nats."""
    entropy = torch.special.entr(teacher.softmax(-1)).sum(-1)
    return _weight(entropy, nats) * plain.cross_entropy(student, teacher)


def sparse(student: Tensor, teacher: Sparse, *, nats: PositiveFloat = 1.0) -> Tensor:
    """The same from weighted entries and the kept entropy. [N] nats."""
    return _weight(teacher.entropy, nats) * plain.sparse(student, teacher)


def _weight(entropy: Tensor, nats: float) -> Tensor:
    """[N] entropies -> [N] weights; no gradient flows to the teacher."""
    return (entropy.detach() / nats).clamp(0, 1)
