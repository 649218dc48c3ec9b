"""ROUGE-1, 2, L and Lsum: F1 in percent by Google's rouge-score; of several references the best.

`tokenizer: default` is rouge-score's own, a to z and digits with the Porter stemmer: it cuts words at accented letters and sees
no other script. `unicode` takes the words of any script, without a stemmer; characters where there are no spaces.
Lsum takes each line of a text as a sentence, as rouge-score does; texts are not split into sentences here.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer

from kdray.data.words import tokens
from kdray.score.answers import Answer
from kdray.score.tokenizers import in_ascii, not_comparable, whole
from kdray.spec import declare

DECLARED = declare.Metric(version=3, scores=("rougeL", "rouge1", "rouge2", "rougeLsum"), needs=("reference",))
SEES = {"default": in_ascii, "unicode": whole}  # by the parameter


def rouge(answers: Sequence[Answer], *, tokenizer: Literal["default", "unicode"] = "default") -> list[dict[str, Any]]:
    """Overlap of every answer with its references."""
    found = []
    for answer in answers:
        problem = not_comparable(answer.references, SEES[tokenizer])
        found.append({"error": f"rouge: {problem}"} if problem else score(answer.text, answer.references, tokenizer))
    return found


def score(text: str, references: Sequence[str], tokenizer: str = "default") -> dict[str, float]:
    """The numbers of one text against at least one reference."""
    best = _scorer(tokenizer).score_multi(list(references), text)
    return {name: 100 * best[name].fmeasure for name in DECLARED.scores}


class _Unicode(Tokenizer):
    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


@functools.cache
def _scorer(tokenizer: str) -> RougeScorer:
    return RougeScorer(list(DECLARED.scores), use_stemmer=True, tokenizer=_Unicode() if tokenizer == "unicode" else None)
