"""Spans of a response whose mean features are one row of a classifier's data, and whether it is factual or
hallucinated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PREDEFINED = 0  # as a window's size: spans as they were annotated


@dataclass(frozen=True)
class Span:
    """Response tokens, counted from 0, and whether what they say is factual."""

    tokens: Sequence[int]
    factual: bool


def make_spans(hallucinated: Sequence[bool], window: int) -> list[Span]:
    """Sliding windows of a size, or predefined spans."""
    return predefined_spans(hallucinated) if window == PREDEFINED else sliding_windows(hallucinated, window)


def predefined_spans(hallucinated: Sequence[bool]) -> list[Span]:
    """All hallucinated tokens of a response as one span, the text before the first and that after the last as factual
    ones.

    What lies between two hallucinated spans is left out, as in the thesis; a clean response is one factual span.
    """
    count = len(hallucinated)
    wrong = [token for token in range(count) if hallucinated[token]]
    if not wrong:
        return [Span(range(count), True)]
    spans = [Span(range(wrong[0]), True), Span(wrong, False), Span(range(wrong[-1] + 1, count), True)]
    return [span for span in spans if len(span.tokens)]


def sliding_windows(hallucinated: Sequence[bool], size: int) -> list[Span]:
    """Every `size` successive tokens, or a shorter response as a whole: hallucinated if any token is."""
    count = len(hallucinated)
    windows = [range(begin, min(begin + size, count)) for begin in range(max(count - size, 0) + 1)]
    return [Span(window, not any(hallucinated[token] for token in window)) for window in windows]
