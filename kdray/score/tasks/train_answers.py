"""Answers to prompts that are trained on: what a lens may learn from, since it needs other documents than those it
rates.
"""

from __future__ import annotations

from pydantic import PositiveInt

from kdray.spec import declare

DECLARED = declare.AnswerTask(
    version=1,
    rows="train",
    gives=("reference", "source"),
    short={"rougeL": "train_rougeL"},
)


def train_answers(*, limit: PositiveInt | None = None, max_new_tokens: PositiveInt = 128) -> None:
    """`limit`: only so many rows; `max_new_tokens`: where an answer is cut."""
