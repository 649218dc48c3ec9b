"""chrF2: character n-grams, by sacrebleu's sentence score in percent (a mean over sentences, not the corpus score)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdray.score.answers import Answer
from kdray.score.tokenizers import NO_REFERENCE
from kdray.spec import declare

DECLARED = declare.Metric(version=2, scores=("chrf",), needs=("reference",), requires=("sacrebleu",))


def chrf(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Overlap of every answer with its references."""
    from sacrebleu.metrics.chrf import CHRF

    metric = CHRF()
    return [
        {"chrf": metric.sentence_score(answer.text, list(answer.references)).score}
        if answer.references
        else {"error": f"chrf: {NO_REFERENCE}"}
        for answer in answers
    ]
