"""Judging many answers by an endpoint: several at a time, and not on and on where none can be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kdray.score.answers import Answer
from kdray.score.endpoint import Stopped

GIVE_UP = 5  # answers without a conclusion, from the first on
Row = dict[str, Any]


def judge_all(row: Callable[[Answer], Row], answers: Sequence[Answer], concurrency: int) -> list[Row]:
    """`row` of every answer.

    Raises:
        Stopped: none of the first few came to a conclusion: then the rest would not either, and cost as much.
    """
    with ThreadPoolExecutor(concurrency) as pool:
        first = list(pool.map(row, answers[:GIVE_UP]))
        if len(first) == GIVE_UP and all("error" in each for each in first):
            raise Stopped(f"none of the first {GIVE_UP} answers can be used: {first[0]['error']}")
        return first + list(pool.map(row, answers[GIVE_UP:]))
