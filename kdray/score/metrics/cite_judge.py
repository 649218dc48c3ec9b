"""Citations as a large model judges them: recall, precision and F1 of an answer's citations, in percent, as
LongBench-Cite defines them (Zhang et al. 2024, arXiv 2409.02897).

Recall is over statements: 100 where the cited passages support all of one, 50 where some of it, else 0; 100 too where
it cites nothing and needs no source. Precision is over cited passages: 100 where one has something of its statement. F1
is of an answer's two. An answer that cites nothing has a precision of 0. The questions to the judge are kdray's own
words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from kdray.cite.format import Span, parse_cites
from kdray.data.sentences import split
from kdray.score.answers import Answer, Given
from kdray.score.endpoint import Endpoint, Nonsense
from kdray.score.judging import judge_all
from kdray.spec import declare

DECLARED = declare.Metric(
    version=2,
    scores=("cite_f1", "cite_recall", "cite_prec"),
    needs=("source",),
    slow=True,
    cited=True,
    endpoint=True,
    runtime=("price_in", "price_out", "budget", "concurrency"),
)
BEGIN = """You are given a question, an answer to it that is based on a document, and one statement of this answer.

#Question#: {question}

#Answer#: {answer}

#Statement#: {statement}

"""
SUPPORT = """#Cited passages of the document#: {cited}

Do these passages support the statement? Go by them alone, and by nothing else that you know. Explain it first, and \
then give your conclusion as **Conclusion: fully** if they support all that the statement says, **Conclusion: \
partially** if they support some of it, or **Conclusion: not** if they support nothing of it."""
NEED = """The statement cites no passage. Explain whether it needs one: it does if it tells facts of the document, or \
conclusions from them, which a reader might want to verify; it does not if it only introduces, connects or repeats \
what other statements say. Then give your conclusion as **Conclusion: needed** or **Conclusion: unneeded**."""
RELEVANCE = """#A cited passage of the document#: {cited}

Is this passage a source of the statement: does it support anything that the statement says? Explain it first, and \
then give your conclusion as **Conclusion: relevant** if it supports at least a part of the statement, or \
**Conclusion: irrelevant** if it supports nothing of it."""
WORTH = {
    SUPPORT: {"fully": 100.0, "partially": 50.0, "not": 0.0},
    NEED: {"needed": 0.0, "unneeded": 100.0},
    RELEVANCE: {"relevant": 100.0, "irrelevant": 0.0},
}


class CiteJudge:
    """Asks the judge about every statement, and about every passage that it cites."""

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
        if not answer.cited or not answer.cited["statements"]:
            return {}
        recalls, precisions = [], []
        try:
            for statement in answer.cited["statements"]:
                passages = passages_of(answer.source, statement)
                about = {"question": answer.question, "answer": answer.text, "statement": statement["text"]}
                recalls.append(self._worth(SUPPORT if passages else NEED, about | {"cited": "\n".join(passages)}))
                precisions += [self._worth(RELEVANCE, about | {"cited": passage}) for passage in passages]
        except Nonsense as failure:
            return {"error": f"cite_judge: {failure}"}
        recall, precision = sum(recalls) / len(recalls), sum(precisions) / max(len(precisions), 1)
        f1 = 2 * recall * precision / (recall + precision) if recall and precision else 0.0
        return {"cite_f1": f1, "cite_recall": recall, "cite_prec": precision}

    def _worth(self, asked: str, about: Mapping[str, str]) -> float:
        """Of what the judge concludes last."""
        said = self.endpoint.ask((BEGIN + asked).format(**about))
        words = re.findall(rf"Conclusion:[\s*]*({'|'.join(WORTH[asked])})\b", said, re.IGNORECASE)
        if not words:
            raise Nonsense(f"no conclusion in {said[:80]!r}")
        return WORTH[asked][words[-1].lower()]


def passages_of(source: str, statement: Mapping[str, Any]) -> list[str]:
    """The passages that are cited for a statement by its best citation, each from its first sentence to its last."""
    sentences = split(source)
    spans: Sequence[Span] = parse_cites(statement["best"], len(sentences))[0]
    return [" ".join(sentences[span.first - 1 : span.last]) for span in dict.fromkeys(spans)]
