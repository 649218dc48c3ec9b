"""CommonsenseQA: a question with its lettered choices, answered by a letter, as in tau/commonsense_qa."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdray.data.cells import FIELD, text_in, texts_in
from kdray.data.example import Example
from kdray.spec import declare
from kdray.spec.errors import InputError
from kdray.store.records import no_choice

DECLARED = declare.Recipe(
    version=1, columns=("question", "choices.label", "choices.text", "answerKey"), answer=("answerKey", "choices.label")
)


def commonsense_qa(row: Mapping[str, Any]) -> Example | None:
    """None for a row without an answer (the hub's test split).

    The instruction is word for word what the task `commonsense_qa` asks.
    """
    letters, texts, answer = (
        texts_in(row, "choices", "label"),
        texts_in(row, "choices", "text"),
        text_in(row, "answerKey").strip(),
    )
    question = text_in(row, "question").strip()
    if not answer:
        return None
    if len(letters) != len(texts):
        raise InputError(
            FIELD, f"column 'choices' holds {len(letters)} letters and {len(texts)} texts", "give every choice both"
        )
    if answer not in letters:
        raise no_choice("answerKey", answer, letters, FIELD)
    choices = "".join(f"{letter}. {text}\n" for letter, text in zip(letters, texts, strict=True))
    return Example(f"Question: {question}\n{choices}Answer:", "", answer)
