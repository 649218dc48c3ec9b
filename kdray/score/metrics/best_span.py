"""Best span exact match, as Lost in the Middle and Lookback Lens take it: whether an answer holds a right one, in
percent.

Both are normalised as for `exact_match`. So an answer may be a sentence or give reasons; one that lists all there is is
right too. An answer without a right one is hallucinated as a whole, where the metric annotates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from kdray.data.words import tokens
from kdray.score.answers import Answer
from kdray.score.metrics.exact_match import normalise
from kdray.score.tokenizers import between_spaces, not_comparable, whole
from kdray.spec import declare

DECLARED = declare.Metric(version=1, scores=("span_em",), needs=("reference", "short"), whole=True)


def best_span(
    answers: Sequence[Answer], *, tokenizer: Literal["default", "unicode"] = "default"
) -> list[dict[str, Any]]:
    """Whether one of its references is in every answer.

    `tokenizer`: as in `exact_match`; `unicode` compares whole words.
    """
    scored: list[dict[str, Any]] = []
    for answer in answers:
        if problem := not_comparable(answer.references, whole if tokenizer == "unicode" else between_spaces):
            scored.append({"error": f"best_span: {problem}"})
            continue
        ours, theirs = _words(answer.text, tokenizer), [_words(reference, tokenizer) for reference in answer.references]
        scored.append({"span_em": 100.0 * any(reference in ours for reference in theirs if reference.strip())})
    return scored


def _words(text: str, tokenizer: str) -> str:
    """Normalised; words of any script between spaces, so that none is found within another."""
    return f" {' '.join(tokens(text))} " if tokenizer == "unicode" else normalise(text)
