"""Natural Questions, open: a question, its short answers, and the passage of Wikipedia that has them.

The rows are those of Lost in the Middle (Liu et al. 2023, arXiv 2307.03172; `nq-open-oracle.jsonl.gz` in its authors'
repository, unpacked): of several passages those marked `isgold` are shown. So a wrong answer is an unfaithful one and
not just unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import PositiveInt

from kdray.score.news import LENS_STOPS
from kdray.score.question import Form, Question
from kdray.score.rows import gold_passages_in, needed_text_in, texts_in
from kdray.spec import declare

DECLARED = declare.AnswerTask(
    version=1,
    columns=("question", "answers|answer", "ctxs"),
    gives=("reference", "source", "short"),
    metrics=("best_span", "exact_match"),
    short={"span_em": "nq_span", "f1": "nq_f1", "em": "nq_em"},
    factual_rate=True,
)
LENS = (
    "Answer the question based on the information in the document. Explain your reasoning in the document step-by-step"
    " before providing the final answer.\n\n#Document#: {text}\n#Question#: {question}\n#Answer#:"
)
FORMS = {"lookback_lens": Form(LENS, LENS_STOPS)}


def nq_open(
    row: Mapping[str, Any],
    *,
    source: str,
    limit: PositiveInt | None = None,
    prompt: Literal["template", "chat", "lookback_lens"] = "template",
    max_new_tokens: PositiveInt = 64,
) -> Question:
    """`source`: a file of such rows; `max_new_tokens`: where an answer is cut, 256 for the reasons that `lookback_lens`
    asks for.
    """
    asked = as_question(needed_text_in(row, "question"))
    answers = texts_in(row, "answers" if "answers" in row else "answer")
    return Question(
        f"Answer the question from this text, in a few words. Question: {asked}",
        gold_passages_in(row, "ctxs"),
        answers,
        asks=asked,
    )


def as_question(text: str) -> str:
    """With a capital and a question mark, as Lookback Lens's authors write the questions of this set, which have
    neither.
    """
    text = text.strip()
    return text[0].upper() + text[1:] + ("" if text.endswith("?") else "?")
