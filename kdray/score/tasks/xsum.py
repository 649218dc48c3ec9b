"""XSUM: BBC articles with a summary of one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import PositiveInt

from kdray.data.words import first_words
from kdray.score.news import DEMONSTRATIONS
from kdray.score.question import Form, Question
from kdray.score.rows import needed_text_in, reference_in
from kdray.spec import declare

DECLARED = declare.AnswerTask(
    version=3,
    columns=("document", "summary"),
    gives=("reference", "source"),
    short={"rougeL": "xsum_rougeL"},
    factual_rate=True,
)
FORMS = {
    "lm_eval": Form("Summarize the following article:\n\n{text}\n\nSummary:", ("\n\n",)),
    "leaderboard": Form("Article: {text}\nSummarize the article in one sentence. Summary:", ("\n",)),
    "leaderboard_2shot": Form(DEMONSTRATIONS + "Document: {text}\nSummary:", ("\n",)),
}


def xsum(
    row: Mapping[str, Any],
    *,
    source: str = "hf:EdinburghNLP/xsum#split=test",
    limit: PositiveInt | None = None,
    prompt: Literal["template", "chat", "lm_eval", "leaderboard", "leaderboard_2shot"] = "template",
    max_words: PositiveInt = 700,
    max_new_tokens: PositiveInt = 256,
) -> Question:
    """`source`: the test set; `max_words`: where an article is cut; `max_new_tokens`: where a summary is."""
    document = first_words(needed_text_in(row, "document"), max_words)
    return Question("Summarize the article in one sentence.", document, reference_in(row, "summary"))
