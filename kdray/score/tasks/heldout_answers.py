"""Answers to prompts of the grid's own data that were never trained on, compared with their responses."""

from __future__ import annotations

from pydantic import PositiveInt

from kdray.spec import declare

DECLARED = declare.AnswerTask(
    version=1,
    rows="unseen",
    gives=("reference", "source"),
    short={"rougeL": "held_rougeL"},
    factual_rate=True,
)


def heldout_answers(*, limit: PositiveInt | None = None, max_new_tokens: PositiveInt = 128) -> None:
    """`limit`: only so many rows; `max_new_tokens`: where an answer is cut."""
