"""XSUM: BBC articles with a summary of one sentence."""

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
    columns=("document", "summary"),
    gives=("reference", "source"),
    short={"rougeL": "xsum_rougeL"},
    factual_rate=True,
    usual=declare.Usual(rows=11334, tokens=540),
)
SHORT = Form(
    "Article: {text}\nSummarize the article in one sentence. Summary:", ("\n",)
)  # the leaderboard's, and the paper's
LENS = Form(
    "Generate a summary comprising of 1 sentence for the given article.\n\n#Article#: {text}\n#Summary#:", LENS_STOPS
)
FORMS = {
    "lm_eval": Form("Summarize the following article:\n\n{text}\n\nSummary:", ("\n\n",)),
    "paper": SHORT,
    "leaderboard": SHORT,
    "leaderboard_2shot": Form(DEMONSTRATIONS + "Document: {text}\nSummary:", ("\n",)),
    "lookback_lens": LENS,
}


def xsum(
    row: Mapping[str, Any],
    *,
    source: str = "hf:EdinburghNLP/xsum#split=test",
    limit: PositiveInt | None = None,
    prompt: Literal[
        "template", "chat", "lm_eval", "paper", "leaderboard", "leaderboard_2shot", "lookback_lens"
    ] = "template",
    max_words: PositiveInt | None = 700,
    max_new_tokens: PositiveInt = 256,
) -> Question:
    """`source`: the test set; `max_words`: where an article is cut, None: where the model's window ends;
    `max_new_tokens`: where a summary is cut.
    """
    document = first_words(needed_text_in(row, "document"), max_words)
    return Question("Summarize the article in one sentence.", document, reference_in(row, "summary"))
