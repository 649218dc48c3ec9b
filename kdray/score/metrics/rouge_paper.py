"""The ROUGE of the paper that kdray was made for: F1 of ROUGE-Lsum without a stemmer, in percent, of several references
the best.

Its tables call this ROUGE-L. It is what its first author's version of lm-eval takes, after `sentences: periods` of
`rouge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdray.score.answers import Answer
from kdray.score.metrics.rouge import score
from kdray.score.tokenizers import in_ascii, not_comparable
from kdray.spec import declare

DECLARED = declare.Metric(version=1, scores=("paperL",), needs=("reference",))


def rouge_paper(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Overlap of every answer with its references."""
    return [_compare(answer) for answer in answers]


def _compare(answer: Answer) -> dict[str, Any]:
    if problem := not_comparable(answer.references, in_ascii, "take rouge with tokenizer: unicode"):
        return {"error": f"rouge_paper: {problem}"}
    return {"paperL": score(answer.text, answer.references, stemmer=False, sentences="periods")["rougeLsum"]}
