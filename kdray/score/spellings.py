"""Choices that are letters, asked about as capitals and as small letters: a choice's likelihood is the sum of both
spellings'.

lm-eval knows one spelling of a choice. Of a task that is to know two, every request is made once more with the case of
its answer swapped, behind all others of its question; what lm-eval sums up are the choices, as before.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from lm_eval.api.instance import Instance

Answer = tuple[float, bool]  # the log-likelihood (nats), and whether it is the likeliest text


def ask_both_cases(task: Any) -> None:
    """Let a multiple-choice task ask about both spellings, and count answers to both as one."""
    task.construct_requests = functools.partial(_both_cases, task.construct_requests)
    task.process_results = functools.partial(_process, task.process_results)


def together(answers: Sequence[Answer]) -> list[Answer]:
    """One answer a choice, of those to all choices as they are and then to all in the other case."""
    half = len(answers) // 2
    return [
        (_log_sum(one, other), first or second)
        for (one, first), (other, second) in zip(answers[:half], answers[half:], strict=True)
    ]


def _log_sum(one: float, other: float) -> float:
    return max(one, other) + math.log1p(math.exp(-abs(one - other)))


def _both_cases(construct: Callable[..., list[Instance]], doc: Any, ctx: str, **rest: Any) -> list[Instance]:
    asked, others = construct(doc, ctx, **rest), construct(doc, ctx, **rest)
    for i, other in enumerate(others):
        context, answer = cast("tuple[str, str]", other.arguments)
        other.arguments, other.idx = (context, answer.swapcase()), len(asked) + i
    return [*asked, *others]


def _process(process: Callable[..., dict[str, Any]], doc: Any, answers: Sequence[Answer]) -> dict[str, Any]:
    return process(doc, together(answers))
