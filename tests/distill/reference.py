"""The objective written from its definition in numpy float64, loss and gradient, without looking at the package."""

from __future__ import annotations

import numpy as np


def reference(student, teacher, labels, alpha, vocab_size, weighting="sum", smoothing=0.0):
    """Loss and its gradient with respect to the student's logits, token by token.

    student [B, T, V_s], teacher [B, T, V_t], labels [B, T] unshifted with -100 for "not counted".
    """
    hard_weight, soft_weight = {
        "sum": (1, alpha),
        "ratio": (1 / (1 + alpha), alpha / (1 + alpha)),
        "convex": (1 - alpha, alpha),
    }[weighting]
    student, teacher = np.asarray(student, np.float64), np.asarray(teacher, np.float64)
    gradient = np.zeros_like(student)
    total, count = 0.0, 0
    for b in range(labels.shape[0]):
        for t in range(1, labels.shape[1]):
            if labels[b, t] == -100:
                continue
            z, w = student[b, t - 1, :vocab_size], teacher[b, t - 1, :vocab_size]
            log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
            q = np.exp(w - w.max())
            q /= q.sum()
            target = np.full(vocab_size, smoothing / vocab_size)
            target[labels[b, t]] += 1 - smoothing
            total += -hard_weight * (target * log_p).sum() - soft_weight * (q * log_p).sum()
            gradient[b, t - 1, :vocab_size] = hard_weight * (np.exp(log_p) - target) + soft_weight * (np.exp(log_p) - q)
            count += 1
    return total / max(count, 1), gradient / max(count, 1)
