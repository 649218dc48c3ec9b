"""Answers to the held-out prompts of the grid's own data, compared with the held-out responses."""

from __future__ import annotations

VERSION = 1
KIND = "generate"
HELDOUT = True
METRICS = ("rouge",)
SHORT = {"rougeL": "held_rougeL"}


def heldout_answers(*, limit: int | None = None, max_new_tokens: int = 128) -> None:
    """`limit`: only so many held-out rows; `max_new_tokens`: where an answer is cut."""
