"""L = CE(student, labels) + alpha * CE(softmax(teacher), softmax(student)): equation 3 of the smoothed-KD paper.

The only place where losses are weighted, tempered and averaged. Both terms are averaged over all response
tokens of the global batch: `Objective` gives sums, and its caller divides by the one global token count.

Three ways to weigh the terms: `sum`, the paper's equation, hard + alpha soft; `ratio`, the code that its experiments
ran, (hard + alpha soft) / (1 + alpha); and `convex`, MiniLLM's, (1 - alpha) hard + alpha soft. All point the same way,
`convex` at alpha / (1 + alpha), and differ by a factor 1 + alpha: AdamW hides it, but clipping the gradient norm does
not, so a clipped run with a large alpha in the first takes smaller steps.

The hard term may be smoothed, with uniform labels in a share of it (Szegedy et al. 2016, arXiv 1512.00567, section 7):
smoothing without a teacher, to tell what its knowledge does from what softness alone does.

Tokens that the student has sampled itself are no labels (GKD, arXiv 2306.13649): there the soft term stands alone, with
the weight that it has beside the hard one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from kdray.distill.labels import Sparse
from kdray.spec import declare
from kdray.spec.components import declared, module_of

IGNORED = -100
T = TypeVar("T", float, Tensor)
Weighting = Literal["sum", "ratio", "convex"]


@dataclass(frozen=True)
class Sums:
    """Sums over tokens, in nats: the objective, and its terms unweighted; a term that takes no part is 0.

    `hard` is cross-entropy with the labels, `soft` the loss with the teacher, `uniform` cross-entropy with the uniform
    distribution.
    """

    total: Tensor
    hard: Tensor
    soft: Tensor
    uniform: Tensor


@dataclass(frozen=True)
class Objective:
    """What is minimised, token by token.

    Args:
        alpha: weight of the soft labels, >= 0; 0 needs no teacher.
        vocab_size: how many columns of the logits are real tokens; the others take no part.
        loss: a file of `kdray.distill.losses`, with its `params`.
        temperature: divides both models' logits in the soft term, which is multiplied by its square
            (Hinton et al. 2015, arXiv 1503.02531: so that the gradient keeps its size).
        weighting: `sum`, `ratio` or `convex`, as above.
        smoothing: share of uniform labels in the hard term, in [0, 1).
        labelled: whether the tokens are labels; where they are not, the hard term has no weight.
    """

    alpha: float
    vocab_size: int
    loss: str = "cross_entropy"
    params: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    weighting: Weighting = "sum"
    smoothing: float = 0.0
    labelled: bool = True

    @property
    def hard_weight(self) -> float:
        """Of the hard term, smoothed or not."""
        if not self.labelled:
            return 0.0
        return {"sum": 1.0, "ratio": 1 / (1 + self.alpha), "convex": 1 - self.alpha}[self.weighting]

    @property
    def soft_weight(self) -> float:
        return self.alpha / (1 + self.alpha) if self.weighting == "ratio" else self.alpha

    def total(self, hard: T, soft: T, uniform: T) -> T:
        """The terms, weighed: sums or means, in nats."""
        smoothed = (1 - self.smoothing) * hard + self.smoothing * uniform
        return self.hard_weight * smoothed + self.soft_weight * soft

    @cached_property
    def declared(self) -> declare.Loss:
        """What the loss says of itself."""
        return declared(declare.Loss, self.loss)

    @property
    def is_softmax_difference(self) -> bool:
        """Whether the gradient with respect to the logits is a weighted difference of the two softmaxes."""
        return self.alpha == 0 or (self.temperature == 1 and self.declared.softmax_difference)

    @cached_property
    def _module(self) -> Any:
        return module_of(declare.Loss, self.loss)

    def __call__(self, student: Tensor, teacher: Tensor | Sparse | None, labels: Tensor) -> Sums:
        """Sums over the N given tokens; no gradient flows to the teacher.

        Args:
            student: [N, V_s] logits, V_s >= vocab_size.
            teacher: [N, V_t] logits, V_t >= vocab_size, or sparse labels; not needed where alpha = 0.
            labels: [N] ids below vocab_size.

        Raises:
            ValueError: alpha > 0 without a teacher.
        """
        if self.alpha and teacher is None:
            raise ValueError(f"alpha = {self.alpha:g} needs a teacher")
        student = _widened(student[:, : self.vocab_size])
        hard = F.cross_entropy(student, labels, reduction="sum")
        nothing = torch.zeros_like(hard)
        soft = self.soft(student, teacher).sum() if self.alpha and teacher is not None else nothing
        uniform = -student.log_softmax(-1).mean(-1).sum() if self.smoothing else nothing
        return Sums(self.total(hard, soft, uniform), hard.detach(), soft.detach(), uniform.detach())

    def soft(self, student: Tensor, teacher: Tensor | Sparse) -> Tensor:
        """The soft term per token, [N]; arguments as above. Sparse labels already are at the temperature."""
        tempered, square = student / self.temperature, self.temperature**2
        if isinstance(teacher, Sparse):
            return square * self._module.sparse(tempered, teacher, **self.params)
        shared = teacher if self.declared.any_vocabulary else teacher[:, : self.vocab_size]
        theirs = _widened(shared).detach() / self.temperature
        return square * getattr(self._module, self.loss)(tempered, theirs, **self.params)


def kd_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, alpha: float, vocab_size: int | None = None
) -> Tensor:
    """Mean over the counted tokens of CE + alpha * soft CE, in nats: the objective for a training loop that has all
    logits.

    kdray's own has them for a chunk of tokens at a time (`kdray.distill.fused`); a test holds the two to each other.

    Args:
        student_logits: [B, T, V_s].
        teacher_logits: [B, T, V_t]; the widths may differ.
        labels: [B, T] as in Hugging Face: unshifted (position t is predicted at t - 1), -100 is not counted.
        alpha: weight of the soft labels, >= 0.
        vocab_size: how many columns are real tokens; None takes the smaller width.

    Returns:
        A scalar; 0 (with a zero gradient) if no token is counted.

    Raises:
        ValueError: a counted label is negative or not below the vocabulary's size, or shapes do not fit.
    """
    if student_logits.shape[:2] != labels.shape or teacher_logits.shape[:2] != labels.shape:
        raise ValueError(
            f"shapes [B, T] differ: student {tuple(student_logits.shape)}, teacher {tuple(teacher_logits.shape)}, "
            f"labels {tuple(labels.shape)}"
        )
    width = min(student_logits.shape[-1], teacher_logits.shape[-1])
    size = width if vocab_size is None else vocab_size
    if not 0 < size <= width:
        raise ValueError(f"vocab_size {size} is not between 1 and the smaller width {width}")
    if alpha < 0:
        raise ValueError(f"alpha {alpha:g} is negative")
    targets = labels[:, 1:]
    counted = targets != IGNORED
    chosen = targets[counted]
    if chosen.numel() and not (int(chosen.min()) >= 0 and int(chosen.max()) < size):
        bad = chosen[(chosen < 0) | (chosen >= size)][0].item()
        raise ValueError(f"label {bad} is outside the vocabulary of {size} tokens")
    sums = Objective(alpha, size)(student_logits[:, :-1][counted], teacher_logits[:, :-1][counted], chosen)
    return sums.total / max(chosen.numel(), 1)


def _widened(logits: Tensor) -> Tensor:
    """At least float32, in which every softmax is taken."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
