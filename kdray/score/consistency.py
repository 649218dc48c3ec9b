"""What metrics with a model share: batches by length, what their tokenizer cannot read, and a rate and a mean of
probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kdray.data.words import MOST
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


def unread(tokenizer: Any, *texts: str) -> dict[str, str]:
    """{}, or an `error` where a tokenizer has no token for most of the characters of a text: a model cannot judge what
    it cannot read.
    """
    for text in texts:
        share = unknown_share(tokenizer, text)
        if share > MOST:
            return {
                "error": (
                    f"the metric's model cannot read it: its tokenizer knows {1 - share:.0%} of the characters of"
                    f" {text[:20]!r}"
                )
            }
    return {}


def unknown_share(tokenizer: Any, text: str) -> float:
    """The share of the characters of `text`, space apart, that stand behind the tokenizer's token for what it does not
    know.
    """
    if tokenizer.unk_token_id is None or not text.strip():
        return 0.0
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    spans = [
        span
        for token, span in zip(found["input_ids"], found["offset_mapping"], strict=True)
        if token == tokenizer.unk_token_id
    ]
    unknown = sum(not character.isspace() for begin, end in spans for character in text[begin:end])
    return unknown / sum(not character.isspace() for character in text)


def rate(name: str, probability: float, threshold: float = 0.5) -> dict[str, float]:
    """A probability of being consistent as two numbers in percent: whether it reaches `threshold`, and itself."""
    return {name: 100.0 * (probability >= threshold), f"{name}_mean": 100 * probability}
