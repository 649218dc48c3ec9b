"""News articles with a short summary beside them: summarise the article in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from kdray.data.cells import text_in
from kdray.data.example import Example
from kdray.data.words import count_words, first_words
from kdray.spec import declare

DECLARED = declare.Recipe(version=1, column_parameters=("article", "summary"))
DAMAGE = ("\ufffd", '"?')  # what a wrong decoding left behind


def news(
    row: Mapping[str, Any],
    *,
    article: str = "text",
    summary: str = "subtitle",
    min_words: NonNegativeInt = 100,
    max_words: PositiveInt = 400,
    min_summary_words: NonNegativeInt = 8,
    ask: str = "Summarise the article in one sentence.",
) -> Example | None:
    """None for a short or damaged article, and for a summary too short to be one. Articles are cut at `max_words`.

    A word is what stands between spaces; in a script that has none, a character.
    """
    text, short = text_in(row, article).strip(), text_in(row, summary).strip()
    if count_words(text) < min_words or count_words(short) < min_summary_words:
        return None
    if any(mark in text or mark in short for mark in DAMAGE):
        return None
    return Example(ask, " ".join(first_words(text, max_words).split()), short)
