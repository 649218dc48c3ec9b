"""Your own test set: texts with a right answer each, by the columns that you name and under your own instruction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import PositiveInt

from kdray.data.words import first_words
from kdray.score.question import Question
from kdray.score.rows import Unusable, document_in, reference_in, text_in
from kdray.spec import declare

DECLARED = declare.AnswerTask(
    version=1,
    column_parameters=("article", "reference", "id"),
    gives=("reference", "source"),
    short={"rougeL": "sum_rougeL"},
    factual_rate=True,
    several=True,
    usual=declare.Usual(tokens=700),
)


def summaries(
    row: Mapping[str, Any],
    *,
    source: str,
    article: str = "article",
    reference: str = "summary",
    id: str | None = None,
    instruction: str = "Summarize the article.",
    limit: PositiveInt | None = None,
    prompt: Literal["template", "chat"] = "template",
    max_words: PositiveInt | None = 700,
    max_new_tokens: PositiveInt = 256,
) -> Question:
    """`source`: the test set; `article`, `reference` and `id`: its columns, the last one kept beside every answer;
    `instruction`: what is asked; `max_words`: where an article is cut, None: where the model's window ends;
    `max_new_tokens`: where an answer is cut.
    """
    name = text_in(row, id).strip() if id else ""
    if id and not name:
        raise Unusable(f"nothing in column '{id}'")
    text = first_words(document_in(row, article), max_words)
    return Question(instruction, text, reference_in(row, reference, lines=True), id=name)
