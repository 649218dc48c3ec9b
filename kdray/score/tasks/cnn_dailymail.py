"""CNN/DailyMail 3.0.0: news articles with their highlights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import PositiveInt

from kdray.data.words import first_words
from kdray.score.news import DEMONSTRATIONS, LENS_STOPS
from kdray.score.question import Form, Question
from kdray.score.rows import needed_text_in, reference_in
from kdray.spec import declare

DECLARED = declare.AnswerTask(
    version=3,
    columns=("article", "highlights"),
    gives=("reference", "source"),
    short={"rougeL": "cnn_rougeL"},
    factual_rate=True,
    usual=declare.Usual(rows=11490, tokens=980),
)
SHORT = Form("Article: {text}\nSummarize the article. Summary:", ("\n",))  # the leaderboard's, and the paper's
LENS = Form(
    "Generate a summary based on the information in the document.\n\n#Document#: {text}\n#Summary#:", LENS_STOPS
)
FORMS = {
    "lm_eval": Form("Summarize the following article:\n\n{text}\n\nSummary:", ("\n\n",)),
    "paper": SHORT,
    "leaderboard": SHORT,
    "leaderboard_2shot": Form(DEMONSTRATIONS + "Document: {text}\nSummary:", ("\n",)),
    "lookback_lens": LENS,
    "appendix_b": Form("Dialogue: {text}\nSummary:"),  # as its students were trained on dialogues
}


def cnn_dailymail(
    row: Mapping[str, Any],
    *,
    source: str = "hf:abisee/cnn_dailymail#config=3.0.0&split=test",
    limit: PositiveInt | None = None,
    prompt: Literal[
        "template", "chat", "lm_eval", "paper", "leaderboard", "leaderboard_2shot", "lookback_lens", "appendix_b"
    ] = "template",
    max_words: PositiveInt | None = 700,
    max_new_tokens: PositiveInt = 256,
) -> Question:
    """`source`: the test set; `max_words`: where an article is cut, None: where the model's window ends;
    `max_new_tokens`: where a summary is cut.
    """
    article = first_words(needed_text_in(row, "article"), max_words)
    return Question("Summarize the article.", article, reference_in(row, "highlights", lines=True))
