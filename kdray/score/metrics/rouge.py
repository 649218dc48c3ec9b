"""ROUGE-1, 2, L and Lsum: F1 in percent by Google's rouge-score with the Porter stemmer; of several references the best.

Lsum takes each line of a text as a sentence, as rouge-score does; texts are not split into sentences here.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer

from kdray.score.answers import Answer

VERSION = 2
SCORES = ("rougeL", "rouge1", "rouge2", "rougeLsum")
NEEDS = ("reference",)


def rouge(answers: Sequence[Answer]) -> list[dict[str, float]]:
    """Overlap of every answer with its references."""
    return [score(answer.text, answer.references) for answer in answers]


def score(text: str, references: Sequence[str]) -> dict[str, float]:
    """The numbers of one text; {} without a reference."""
    if not references:
        return {}
    best = _scorer().score_multi(list(references), text)
    return {name: 100 * best[name].fmeasure for name in SCORES}


@functools.cache
def _scorer() -> RougeScorer:
    return RougeScorer(list(SCORES), use_stemmer=True)
