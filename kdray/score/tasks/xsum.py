"""XSUM: BBC articles with a summary of one sentence."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import PositiveInt

from kdray.data.example import Example

VERSION = 1
COLUMNS = ("document", "summary")
KIND = "generate"
METRICS = ("rouge",)
SHORT = {"rougeL": "xsum_rougeL"}
FACTUAL_RATE = True  # by the grid's lens, if it has one


def xsum(
    row: Mapping[str, str],
    *,
    source: str = "hf:EdinburghNLP/xsum#split=test",
    limit: PositiveInt | None = None,
    max_words: PositiveInt = 700,
    max_new_tokens: PositiveInt = 256,
) -> Example:
    """`source`: the test set; `max_words`: where an article is cut, so that instruction and lead always fit."""
    article = " ".join(row["document"].split()[:max_words])
    return Example("Summarize the article in one sentence.", article, row["summary"])
