"""ROUGE-L F1 in percent, by Google's rouge-score with the Porter stemmer."""

from __future__ import annotations

import functools

from rouge_score.rouge_scorer import RougeScorer

VERSION = 1


@functools.cache
def _scorer() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)


def rouge(answer: str, reference: str, source: str) -> dict[str, float]:
    """Overlap of `answer` with `reference`; `source` is not looked at."""
    return {"rougeL": 100 * _scorer().score(reference, answer)["rougeL"].fmeasure}
