"""The MMLU questions that ship inside lm-eval (its chain-of-thought exemplars), with the answer's text scored."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from kdray.spec import declare

DECLARED = declare.ChoiceTask(
    version=3,
    short={"acc": "mmlu", "acc_norm": "mmlu_norm"},
    usual=declare.Usual(rows=91, tokens=65, choices=4, choice=9),
)
ANY = r"(?:(?!\nQ: ).)"  # a character that does not reach into the next question
QUESTION = re.compile(
    rf"Q: (?P<question>{ANY}+?)\n\(A\) (?P<a>{ANY}+?) \(B\) (?P<b>{ANY}+?) \(C\) (?P<c>{ANY}+?) \(D\) (?P<d>{ANY}+?)\n"
    rf"A: {ANY}*?The answer is \((?P<answer>[A-D])\)",
    re.DOTALL,
)


def mmlu_bundled(
    *,
    source: str = "wheel:lm-eval==0.4.13/lm_eval/tasks/mmlu/flan_cot_fewshot/_cot_prompts.json"
    "#sha256=5daaa1973bf874005f64f28d3834b875f6886f0d6475878e6a6c821994a5286a",
    limit: PositiveInt | None = None,
    shots: NonNegativeInt = 0,
    untrained_shots: NonNegativeInt | None = None,
    shots_source: str | None = None,
    chat_template: bool = False,
    max_words: PositiveInt = 30,
) -> None:
    """`max_words`: longer questions are left out; `limit`: then only so many."""


def documents(path: Path, max_words: int, **_: Any) -> Iterator[dict[str, Any]]:
    """The questions in the file's order, as `config` reads them."""
    for subject, text in json.loads(path.read_text(encoding="utf-8-sig")).items():
        for match in QUESTION.finditer(text):
            choices = [match[letter].strip() for letter in "abcd"]
            if len(f"{match['question']} {' '.join(choices)}".split()) <= max_words:
                answer = "ABCD".index(match["answer"])
                yield {"subject": subject, "question": match["question"].strip(), "choices": choices, "answer": answer}


def config() -> dict[str, Any]:
    """The task in lm-eval's own terms."""
    return {
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "answer",
        "doc_to_choice": "{{choices}}",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")
        ],
        "metadata": {"version": DECLARED.version},
    }
