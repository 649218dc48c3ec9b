"""METEOR by nltk, in percent: words matched as they are, by stem and, with `synonyms`, by WordNet.

Texts are split as `nltk.word_tokenize` does, but into sentences by `kdray.score.sentences`, which needs no data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdray.score.answers import Answer
from kdray.score.sentences import split

VERSION = 1
SCORES = ("meteor",)
NEEDS = ("reference",)
REQUIRES = ("nltk",)
NLTK_DATA = {"synonyms": "corpora/wordnet"}


class NoSynonyms:
    """Stands in for nltk's WordNet where only words and stems are matched."""

    def synsets(self, word: str) -> list[Any]:
        return []


def meteor(answers: Sequence[Answer], *, synonyms: bool = True) -> list[dict[str, float]]:
    """Best METEOR of every answer over its references.

    With `synonyms` nltk must have WordNet: it is never fetched here (`python -m nltk.downloader wordnet`).
    """
    from nltk.corpus import wordnet
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.translate.meteor_score import meteor_score

    words: Any = wordnet if synonyms else NoSynonyms()
    tokenizer = NLTKWordTokenizer()

    def tokens(text: str) -> list[str]:
        return [token for sentence in split(text) for token in tokenizer.tokenize(sentence)]

    return [
        {"meteor": 100 * meteor_score([tokens(one) for one in answer.references], tokens(answer.text), wordnet=words)}
        if answer.references
        else {}
        for answer in answers
    ]
