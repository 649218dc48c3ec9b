"""The objective straight from hidden states, chunk by chunk over tokens: logits exist for one chunk at a time.

The gradient is made together with the loss, so that a chunk's logits are never needed again: a [N, V] tensor of
either model is never there. For the paper's objective it is written by hand, in place: with p and q the softmaxes
of student and teacher over V tokens, w_h and w_s the weights of the two terms, r = w_s / (w_h + w_s), and e the share
of uniform labels,

    dL/dz = (w_h + w_s) (p - r q - (1 - r) ((1 - e) onehot(y) + e / V)),

whose factor goes into the matrix products. Every other loss or temperature is differentiated by autograd, chunk
by chunk.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from kdray.distill.labels import SoftLabels, Sparse
from kdray.distill.objective import Objective, Sums
from kdray.models.head import Head

CHUNK = 256  # tokens; with 32 the head's products take nearly twice as long, with more only a CPU's memory grows
GPU_BYTES = 1 << 30  # of one model's logits of a chunk on a GPU, whose products want thousands of tokens
BLOCK = 16  # tokens whose softmaxes are taken together on a CPU, so that both models' logits stay in its cache


def fused_sums(
    objective: Objective, head: Head, hidden: Tensor, labels: Tensor, soft: SoftLabels | None, scale: float = 1.0
) -> Sums:
    """The objective's sums over N tokens, `total` times `scale` and, where gradients are on, with its gradient.

    Args:
        hidden: [N, d] last hidden states of the student.
        labels: [N] ids below the objective's vocabulary size.
        soft: soft labels of the same N tokens; not needed where alpha = 0.
        scale: factor on the total, such as one over the number of tokens in the whole batch.

    Raises:
        ValueError: alpha > 0 without soft labels, or with those of another number of tokens.
    """
    if objective.alpha > 0 and (soft is None or len(soft) != len(labels)):
        raise ValueError(
            f"alpha = {objective.alpha:g} with {len(labels)} tokens and soft labels of"
            f" {0 if soft is None else len(soft)}"
        )
    linear, differentiate = head.linear, torch.is_grad_enabled()  # off inside of `forward`, where nothing else tells
    total, *terms = _Fused.apply(hidden, linear.weight, head.bias, labels, soft, objective, head, scale, differentiate)  # type: ignore[misc]
    return Sums(total, *terms)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        soft: SoftLabels | None,
        objective: Objective,
        head: Head,
        scale: float,
        differentiate: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        device, size = hidden.device.type, objective.vocab_size
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        states, matrix = hidden.to(dtype), weight[:size].to(dtype)
        wanted = [differentiate and need for need in ctx.needs_input_grad]
        grads = [
            torch.zeros_like(t) if t is not None and need else None
            for t, need in zip((hidden, weight, bias), wanted, strict=False)
        ]
        sums = torch.zeros(4, dtype=torch.promote_types(weight.dtype, torch.float32), device=hidden.device)
        with torch.autocast(device, enabled=False):
            chunk = chunk_of(hidden.device, size * sums.element_size(), by_hand=objective.is_softmax_difference)
            for begin in range(0, len(labels), chunk):
                end = min(begin + chunk, len(labels))
                ours, theirs = (_scratch(i, end - begin, size, sums.dtype, hidden.device) for i in (0, 1))
                into = None if objective.declared.any_vocabulary else theirs
                teacher = soft.chunk(begin, end, into) if soft is not None and objective.alpha > 0 else None
                if dtype == ours.dtype:
                    torch.mm(states[begin:end], matrix.T, out=ours)
                else:
                    ours.copy_(torch.mm(states[begin:end], matrix.T))
                if bias is not None:
                    ours += bias[:size]
                slope = head.finish_(ours)
                gradient, factor, of_chunk = _differentiate(objective, ours, teacher, labels[begin:end])
                sums += of_chunk
                if not any(wanted):
                    continue
                if slope is not None:
                    gradient *= slope
                factor *= scale * head.scale
                to_hidden, to_weight, to_bias = grads
                if to_bias is not None:
                    to_bias[:size] += factor * gradient.sum(0)
                gradient = gradient.to(dtype)
                if to_hidden is not None:
                    add_product(to_hidden[begin:end], gradient, matrix, factor)
                if to_weight is not None:
                    add_product(to_weight[:size], gradient.T, states[begin:end], factor)
        ctx.grads = grads
        hard, soft_sum, uniform = (sums[i].clone() for i in (1, 2, 3))
        ctx.mark_non_differentiable(hard, soft_sum, uniform)
        return sums[0] * scale, hard, soft_sum, uniform

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *_: Any) -> Any:  # type: ignore[override]
        # While anything else refers to a gradient, autograd copies it: the head's has a float for every weight.
        grads, ctx.grads = ctx.grads, None
        if grads is None:
            raise RuntimeError("the fused loss is differentiated a second time: its gradient is made only once")
        # A GPU would have to be waited for to learn that the factor is 1, as it is in a training step.
        if upstream.device.type != "cpu" or float(upstream) != 1.0:
            for grad in grads:
                if grad is not None:
                    grad *= upstream
        return *grads, None, None, None, None, None, None


def chunk_of(device: torch.device, token_bytes: int, *, by_hand: bool = True) -> int:
    """How many tokens have their logits at once, `token_bytes` each in each model; a loss that is not differentiated by
    hand keeps several copies of them.
    """
    if device.type == "cpu":
        return CHUNK
    room = GPU_BYTES if by_hand else GPU_BYTES // 4
    return max(CHUNK, room // token_bytes // CHUNK * CHUNK)


def _scratch(which: int, count: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[count, width] for a chunk's logits.

    On a CPU the memory is kept: to get 50 MB anew costs a third of the product.
    """
    if device.type == "cpu":
        return _kept(which, width, dtype)[:count]
    return torch.empty(count, width, dtype=dtype, device=device)


@functools.lru_cache(4)
def _kept(which: int, width: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(CHUNK, width, dtype=dtype)


def add_product(into: Tensor, a: Tensor, b: Tensor, factor: float) -> None:
    """into += factor a b, in one pass where the types allow it."""
    if into.dtype == a.dtype:
        into.addmm_(a, b, alpha=factor)
    else:
        into.add_(torch.mm(a, b), alpha=factor)


def _differentiate(
    objective: Objective, z: Tensor, teacher: Tensor | Sparse | None, labels: Tensor
) -> tuple[Tensor, float, Tensor]:
    """The gradient of the objective with respect to the logits `z` [C, V], which it may overwrite, as it may the
    teacher's.

    Returns:
        The gradient without a factor, the factor, and the chunk's sums [total, hard, soft, uniform].
    """
    if not objective.is_softmax_difference:
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            sums = objective(leaf, teacher, labels)
            (gradient,) = torch.autograd.grad(sums.total, leaf)
        return gradient, 1.0, torch.stack([sums.total.detach(), sums.hard, sums.soft, sums.uniform])
    size = BLOCK if z.device.type == "cpu" else len(z)
    of_chunk = z.new_zeros(4)
    for begin in range(0, len(z), size):
        end = min(begin + size, len(z))
        theirs = (
            teacher.chunk(begin, end)
            if isinstance(teacher, Sparse)
            else teacher[begin:end]
            if teacher is not None
            else None
        )
        of_chunk += _softmax_difference_(objective, z[begin:end], theirs, labels[begin:end])
    return z, objective.hard_weight + objective.soft_weight, of_chunk


def _softmax_difference_(objective: Objective, z: Tensor, teacher: Tensor | Sparse | None, labels: Tensor) -> Tensor:
    """Turn `z` into the gradient above, and the teacher's logits into q; returns the sums [total, hard, soft,
    uniform].
    """
    smoothing, ratio = objective.smoothing, objective.soft_weight / (objective.hard_weight + objective.soft_weight)
    less_entropy = teacher is not None and objective.declared.less_entropy
    at_label = z.gather(1, labels[:, None])
    if isinstance(teacher, Sparse):
        expected = (teacher.weights * z.gather(1, teacher.ids)).sum(1)  # of the student's logit, under the teacher
        entropy = teacher.entropy
    elif teacher is not None:
        torch.softmax(teacher, 1, out=teacher)
        expected = (teacher * z).sum(1)
        entropy = torch.special.entr(teacher).sum(1) if less_entropy else expected
    else:
        expected = entropy = z.new_zeros(len(z))
    mean = z.mean(1) if smoothing else None
    largest = z.amax(1)
    torch.softmax(z, 1, out=z)
    log_total = largest - z.amax(1).log()  # the log-sum-exp: the largest probability is exp(largest - log_total)
    hard = (log_total - at_label[:, 0]).sum()
    soft = (log_total - expected).sum() if teacher is not None else z.new_zeros(())
    uniform = (log_total - mean).sum() if mean is not None else z.new_zeros(())
    if less_entropy:
        soft -= entropy.sum()
    if isinstance(teacher, Sparse):
        z.scatter_add_(1, teacher.ids, -ratio * teacher.weights)
    elif teacher is not None:
        z.sub_(teacher, alpha=ratio)
    if smoothing:
        z -= (1 - ratio) * smoothing / z.shape[1]
    z.scatter_add_(1, labels[:, None], torch.full_like(at_label, (ratio - 1) * (1 - smoothing)))
    return torch.stack([objective.total(hard, soft, uniform), hard, soft, uniform])
