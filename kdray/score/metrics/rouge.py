"""ROUGE-1, 2, L and Lsum: F1 in percent by Google's rouge-score; of several references the best.

`tokenizer: default` is rouge-score's own, a to z and digits with the Porter stemmer: it cuts words at accented letters
and sees no other script. `unicode` takes the words of any script, without a stemmer; characters where there are no
spaces. Lsum takes each line of a text as a sentence, as rouge-score does. `sentences: periods` makes a line break of "
. " before, as lm-eval's own tasks do; it parts texts whose words somebody has cut, `He left . She stayed .`, and leaves
others as they are.
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

DECLARED = declare.Metric(
    version=3,
    later=("stemmer", "sentences"),
    scores=("rougeL", "rouge1", "rouge2", "rougeLsum"),
    needs=("reference",),
)
SEES = {"default": in_ascii, "unicode": whole}  # by the parameter


def rouge(
    answers: Sequence[Answer],
    *,
    tokenizer: Literal["default", "unicode"] = "default",
    stemmer: bool = True,
    sentences: Literal["lines", "periods"] = "lines",
) -> list[dict[str, Any]]:
    """Overlap of every answer with its references.

    `stemmer`: that of the default tokenizer; `sentences`: what parts them for Lsum.
    """
    found = []
    for answer in answers:
        problem = not_comparable(answer.references, SEES[tokenizer])
        if problem:
            found.append({"error": f"rouge: {problem}"})
        else:
            found.append(score(answer.text, answer.references, tokenizer, stemmer=stemmer, sentences=sentences))
    return found


def score(
    text: str, references: Sequence[str], tokenizer: str = "default", *, stemmer: bool = True, sentences: str = "lines"
) -> dict[str, float]:
    """The numbers of one text against at least one reference."""
    if sentences == "periods":
        text, references = parted(text), [parted(reference) for reference in references]
    best = _scorer(tokenizer, stemmer).score_multi(list(references), text)
    return {name: 100 * best[name].fmeasure for name in DECLARED.scores}


def parted(text: str) -> str:
    """`text` with a line break for every full stop between two spaces."""
    return text.replace(" . ", "\n")


class _Unicode(Tokenizer):
    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


@functools.cache
def _scorer(tokenizer: str, stemmer: bool) -> RougeScorer:
    return RougeScorer(
        list(DECLARED.scores), use_stemmer=stemmer, tokenizer=_Unicode() if tokenizer == "unicode" else None
    )
