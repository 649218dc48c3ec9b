"""CNN/DailyMail 3.0.0: news articles with their highlights."""

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
    columns=("article", "highlights"),
    gives=("reference", "source"),
    short={"rougeL": "cnn_rougeL"},
    factual_rate=True,
)
FORMS = {
    "lm_eval": Form("Summarize the following article:\n\n{text}\n\nSummary:", ("\n\n",)),
    "leaderboard": Form("Article: {text}\nSummarize the article. Summary:", ("\n",)),
    "leaderboard_2shot": Form(DEMONSTRATIONS + "Document: {text}\nSummary:", ("\n",)),
}


def cnn_dailymail(
    row: Mapping[str, Any],
    *,
    source: str = "hf:abisee/cnn_dailymail#config=3.0.0&split=test",
    limit: PositiveInt | None = None,
    prompt: Literal["template", "chat", "lm_eval", "leaderboard", "leaderboard_2shot"] = "template",
    max_words: PositiveInt = 700,
    max_new_tokens: PositiveInt = 256,
) -> Question:
    """`source`: the test set; `max_words`: where an article is cut; `max_new_tokens`: where a summary is."""
    article = first_words(needed_text_in(row, "article"), max_words)
    return Question("Summarize the article.", article, reference_in(row, "highlights", lines=True))
