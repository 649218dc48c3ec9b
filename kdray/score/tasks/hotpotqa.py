"""HotpotQA, distractor setting: a question, two passages that answer it together, and eight that do not.

The setting is our choice where only the data set's name is given: the answer can be found in the prompt, so that a
wrong one is unfaithful and not just unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import PositiveInt

from kdray.score.question import Form, Question
from kdray.score.rows import needed_text_in, passages_in, texts_in
from kdray.spec import declare

DECLARED = declare.AnswerTask(
    version=1,
    columns=("question", "answer", "context"),
    gives=("reference", "source", "short"),
    metrics=("exact_match",),
    short={"f1": "hpqa_f1", "em": "hpqa_em"},
    usual=declare.Usual(rows=7405, tokens=1600),
)
FORMS = {
    "qa": Form("{text}\n\n{instruction}\nAnswer:", ("\n",)),
    "appendix_b": Form("Context: {text}\nQuestion: {question}\nAnswer:"),
}


def hotpotqa(
    row: Mapping[str, Any],
    *,
    source: str = "hf:hotpotqa/hotpot_qa#config=distractor&split=validation",
    limit: PositiveInt | None = None,
    prompt: Literal["template", "chat", "qa", "appendix_b"] = "template",
    max_new_tokens: PositiveInt = 32,
) -> Question:
    """All ten passages are shown, in the data set's order; where a window is too small, the last are cut.

    `context` as on the hub, or as in the file of the data set's authors.
    """
    asked = needed_text_in(row, "question")
    instruction = f"Answer the question from these passages, in a few words. Question: {asked}"
    return Question(instruction, "\n".join(passages_in(row, "context")), texts_in(row, "answer"), asks=asked)
