"""Faithfulness as a large model judges it: the rate of answers that say nothing their source does not.

The rubric is that of Lookback Lens (its tables B.1 for summaries and B.2 for answers to questions): the judge
explains, concludes True or False, and names the problematic spans. These are kept with each row as character
offsets into the answer, and so is what the judge said. A row without a conclusion is left out and counted.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from kdray.score.answers import Answer, Given
from kdray.score.consistency import judged
from kdray.score.endpoint import Endpoint, Nonsense
from kdray.score.judging import judge_all
from kdray.spec import declare

DECLARED = declare.Metric(
    version=1,
    scores=("judge",),
    needs=("source",),
    slow=True,
    spans=True,
    endpoint=True,
    runtime=("price_in", "price_out", "budget", "concurrency"),
)

RUBRIC = """You will be provided with a document and a proposed {what}. Your task is to determine if the proposed \
{noun} can be directly inferred from the document. If the {noun} contains any information not found in the document, \
it is considered false. Even if the {noun} is different from a ground truth {noun}, it might still be true, as long \
as it doesn't contain false information. For each proposed {noun}, explain why it is true or false based on the \
information from the document. Focus only on the original document's content, disregarding any external \
context.{gap}After your explanation, give your final conclusion as **Conclusion: True** if the proposed {noun} is \
completely accurate based on the document, or **Conclusion: False** if it contains any incorrect or unsupported \
information. If your conclusion is 'False', identify the exact phrases or name entities from the {noun} that is \
incorrect by stating **Problematic Spans: [the inaccurate text spans from the {noun}, in Python list of strings \
format]**.

#Document#: {document}

#{truth}#: {references}

#{title}#: {answer}

Write your explanation first, and then give your final conclusion as **Conclusion: True** if the proposed {noun} is \
completely accurate based on the document, or **Conclusion: False** if it contains any incorrect or unsupported \
information. Add **Problematic Spans: [the exact inaccurate text spans from the {noun}, in a list of strings]** if \
your conclusion is 'False'."""
SUMMARY = {
    "what": "summary",
    "noun": "summary",
    "gap": " ",
    "truth": "Ground Truth Summary",
    "title": "Proposed Summary",
}
QUESTION = {
    "what": "answer to a question",
    "noun": "answer",
    "gap": "\n\n",
    "truth": "Ground Truth Answers (a list of valid answers)",
    "title": "Proposed Answer",
}
CONCLUSION = re.compile(r"Conclusion:[\s*]*(True|False)", re.IGNORECASE)
QUOTED = re.compile(r"Problematic Spans:[\s*]*(\[.*?\])\s*(?:\*|$)", re.IGNORECASE | re.DOTALL)


class Judge:
    """Asks the judge about every answer."""

    def __init__(
        self,
        given: Given,
        *,
        model: str,
        max_tokens: PositiveInt = 512,
        price_in: NonNegativeFloat = 0.0,
        price_out: NonNegativeFloat = 0.0,
        budget: PositiveFloat = 10.0,
        concurrency: PositiveInt = 4,
    ) -> None:
        """`model`: its name at the endpoint; prices in USD for a million tokens; `budget`: in USD, for all of a
        store.
        """
        assert given.cache is not None, "a judge keeps its answers"
        prices = {"price_in": price_in, "price_out": price_out, "budget": budget}
        self.endpoint, self.concurrency = Endpoint(model, given.cache / "judge", max_tokens, **prices), concurrency

    def __call__(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        return judge_all(self._row, answers, self.concurrency)

    def _row(self, answer: Answer) -> dict[str, Any]:
        if not judged(answer):
            return {}
        try:
            said = self.endpoint.ask(ask(answer))
            true, spans = read(said, answer.text)
        except Nonsense as failure:
            return {"error": f"judge: {failure}"}
        return {"judge": 100.0 * true, "spans": [list(span) for span in spans], "said": said}


def ask(answer: Answer) -> str:
    """The prompt about one answer."""
    form = QUESTION if answer.question else SUMMARY
    references = list(answer.references) if answer.question else " ".join(answer.references)
    return RUBRIC.format(**form, document=answer.source, references=references, answer=answer.text)


def read(said: str, answer: str) -> tuple[bool, list[tuple[int, int]]]:
    """The judge's last conclusion, and the spans that it named, where they stand in the answer first; a true answer has
    none.

    Raises:
        Nonsense: there is no conclusion.
    """
    conclusions = CONCLUSION.findall(said)
    if not conclusions:
        raise Nonsense(f"no conclusion in {said[:80]!r}")
    if conclusions[-1].lower() == "true":
        return True, []
    named = QUOTED.findall(said)
    starts = [(answer.find(text), len(text)) for text in (_strings(named[-1]) if named else []) if text]
    return False, sorted({(start, start + length) for start, length in starts if start >= 0})


def _strings(listed: str) -> list[str]:
    """The strings of a list as Python writes it or, where quotes are not matched as they must be, what stands between
    them.
    """
    try:
        found = ast.literal_eval(listed)
    except (ValueError, SyntaxError):
        found = re.split(r"[\"']\s*,\s*[\"']", listed.strip("[] \n").strip("\"'"))
    return [text for text in found if isinstance(text, str)]
