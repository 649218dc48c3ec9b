"""L = CE(student, labels) + alpha * CE(softmax(teacher), softmax(student)): equation 3 of the smoothed-KD paper.

The only place where tokens are counted, averaged and weighted. Both terms are averaged over all response
tokens of the global batch: `Objective` gives sums, and its caller divides by the one global token count.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdray.distill.losses.hard import hard_cross_entropy
from kdray.distill.losses.soft import soft_cross_entropy

IGNORED = -100


@dataclass(frozen=True)
class Sums:
    """Sums over tokens, in nats: the objective and its two terms (the soft one unweighted; 0 where alpha = 0)."""

    total: Tensor
    hard: Tensor
    soft: Tensor


@dataclass(frozen=True)
class Objective:
    """`alpha` weighs the soft labels; logits beyond `vocab_size` (padding of the matrix) take no part."""

    alpha: float
    vocab_size: int

    def __call__(self, student: Tensor, teacher: Tensor | None, labels: Tensor) -> Sums:
        """Sums over the N given tokens.

        Args:
            student: [N, V_s] logits, V_s >= vocab_size.
            teacher: [N, V_t] logits, V_t >= vocab_size; not needed where alpha = 0.
            labels: [N] ids below vocab_size.
        """
        student = _widened(student[:, : self.vocab_size])
        hard = hard_cross_entropy(student, labels).sum()
        if self.alpha == 0:
            return Sums(hard, hard.detach(), torch.zeros_like(hard))
        if teacher is None:
            raise ValueError(f"alpha = {self.alpha:g} needs teacher logits")
        soft = soft_cross_entropy(student, _widened(teacher[:, : self.vocab_size])).sum()
        return Sums(hard + self.alpha * soft, hard.detach(), soft.detach())


def kd_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, alpha: float, vocab_size: int | None = None
) -> Tensor:
    """Mean over the counted tokens of CE + alpha * soft CE, in nats.

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
