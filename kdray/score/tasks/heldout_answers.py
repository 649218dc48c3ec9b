"""Answers to prompts of the grid's own data that were never trained on, compared with their responses."""

from __future__ import annotations

from pydantic import PositiveInt

VERSION = 1
KIND = "generate"
ROWS = "unseen"
GIVES = ("reference", "source")
METRICS = ("rouge",)
SHORT = {"rougeL": "held_rougeL"}
FACTUAL_RATE = True


def heldout_answers(*, limit: PositiveInt | None = None, max_new_tokens: PositiveInt = 128) -> None:
    """`limit`: only so many rows; `max_new_tokens`: where an answer is cut."""
