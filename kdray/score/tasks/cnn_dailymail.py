"""CNN/DailyMail 3.0.0: news articles with their highlights."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import PositiveInt

from kdray.data.example import Example

VERSION = 1
COLUMNS = ("article", "highlights")
KIND = "generate"
METRICS = ("rouge",)
SHORT = {"rougeL": "cnn_rougeL"}
FACTUAL_RATE = True  # by the grid's lens, if it has one


def cnn_dailymail(
    row: Mapping[str, str],
    *,
    source: str = "hf:abisee/cnn_dailymail#config=3.0.0&split=test",
    limit: PositiveInt | None = None,
    max_words: PositiveInt = 700,
    max_new_tokens: PositiveInt = 256,
) -> Example:
    """`source`: the test set; `max_words`: where an article is cut, so that instruction and lead always fit."""
    article = " ".join(row["article"].split()[:max_words])
    return Example("Summarize the article.", article, row["highlights"])
