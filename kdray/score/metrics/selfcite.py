"""How much a model's own probabilities say that its answer rests on a few sentences of the source: the rewards of
SelfCite (Chuang et al. 2025, arXiv 2502.09604) for the best sentences that leaving out one after the other finds.

`selfcite` is equation 5.1, the sum of `cite_drop` and `cite_hold`; `cite_all` is how much likelier the whole source
makes the answer than none of it. All in nats a token of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import PositiveInt

from kdray.cite.attribution import held
from kdray.cite.format import Span, Statement, write
from kdray.cite.layout import lay_out, statements_of
from kdray.cite.reward import Reader
from kdray.score.answers import Answer, Given
from kdray.spec import declare
from kdray.spec.errors import InputError
from kdray.spec.folders import window_in

DECLARED = declare.Metric(
    version=2,
    scores=("selfcite", "cite_drop", "cite_hold", "cite_all"),
    needs=("source",),
    slow=True,
    answerer=True,
    counts=("sequences", "documents_cut", "sentences_cut", "without_answer", "without_document", "without_room"),
)


class SelfCite:
    """Asks the model that answered."""

    def __init__(
        self,
        given: Given,
        *,
        considered: PositiveInt = 16,
        cited: PositiveInt = 3,
        window: PositiveInt | None = None,
    ) -> None:
        """`considered`: the sentences that are left out one after the other, `cited`: the most that a statement rests
        on; `window`: the most tokens of a prompt with its answer, at most the model's own.
        """
        assert given.answerer is not None, "the metric declares that it asks the model that answered"
        self.tokenizer, self.considered, self.cited = given.answerer.tokenizer, considered, cited
        try:
            self.shared = given.answerer.shared
        except InputError as error:
            raise InputError("score.metrics.selfcite", error.found, "leave selfcite out for such a model") from None
        own = window_in(given.answerer.model.config.to_dict())
        self.window = min((size for size in (window, own) if size), default=None)

    def __call__(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        return [self._row(answer) for answer in answers]

    def _row(self, answer: Answer) -> dict[str, Any]:
        noted: dict[str, Any] = dict.fromkeys(DECLARED.counts, 0)
        texts, statements = statements_of(self.tokenizer, answer.output_ids, answer.text)
        if not statements:
            return noted | {"without_answer": 1}
        try:
            whole = lay_out(self.tokenizer, answer.input_ids, answer.source, answer.thought_ids)
        except InputError:
            return noted | {"without_document": 1}
        laid = whole.within(self.window and self.window - sum(map(len, statements)))
        cut = len(whole.sentences) - len(laid.sentences)
        noted |= {"documents_cut": int(cut > 0), "sentences_cut": cut}
        if not laid.sentences:
            return noted | {"without_room": 1}
        read = Reader(self.shared)
        found = held(read, laid, answer.text, statements, self.considered, self.cited)
        cites = [tuple(Span(place + 1, place + 1) for place in sorted(one)) for one in found.cited]
        written = write(Statement(*pair) for pair in zip(texts, cites, strict=True))
        return {**found.numbers, "cited": written, **noted, "sequences": read.sequences}
