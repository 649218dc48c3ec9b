"""What all metrics of factual consistency share: batches by length, and a rate and a mean of probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from kdray.score.answers import Answer

T = TypeVar("T")
R = TypeVar("R")


def batched(items: Sequence[T], size: int, length: Callable[[T], int], run: Callable[[list[T]], list[R]]) -> list[R]:
    """`run` over `items` in batches of about equal `length`, the results in the order of `items`."""
    order = sorted(range(len(items)), key=lambda i: (-length(items[i]), i))
    results: dict[int, R] = {}
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        results |= dict(zip(chosen, run([items[i] for i in chosen]), strict=True))
    return [results[i] for i in range(len(items))]


def judged(answer: Answer) -> bool:
    """Whether there is something to be true, and something to be true to: an empty answer is neither true nor false."""
    return bool(answer.text and answer.source)


def rate(name: str, probability: float, threshold: float = 0.5) -> dict[str, float]:
    """A probability of being consistent as two numbers in percent: whether it reaches `threshold`, and itself."""
    return {name: 100.0 * (probability >= threshold), f"{name}_mean": 100 * probability}
