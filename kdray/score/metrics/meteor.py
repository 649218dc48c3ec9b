"""METEOR by nltk, in percent: words matched as they are, by stem and, with `synonyms`, by WordNet.

`tokenizer: default` splits texts as `nltk.word_tokenize` does, but into sentences by `kdray.data.sentences`, which
needs no data; `unicode` takes the words of any script, characters where there are no spaces. Stems and WordNet are
English.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from kdray.data.sentences import split
from kdray.data.words import tokens as words_of
from kdray.score.answers import Answer
from kdray.score.tokenizers import between_spaces, not_comparable, whole
from kdray.spec import declare

DECLARED = declare.Metric(
    version=3,
    scores=("meteor",),
    needs=("reference",),
    requires=("nltk",),
    nltk_data={"synonyms": "corpora/wordnet"},
)


class NoSynonyms:
    """Stands in for nltk's WordNet where only words and stems are matched."""

    def synsets(self, word: str) -> list[Any]:
        return []


def meteor(
    answers: Sequence[Answer], *, synonyms: bool = True, tokenizer: Literal["default", "unicode"] = "default"
) -> list[dict[str, Any]]:
    """Best METEOR of every answer over its references.

    With `synonyms` nltk must have WordNet: it is never fetched here (`python -m nltk.downloader wordnet`).
    """
    from nltk.corpus import wordnet
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.translate.meteor_score import meteor_score

    words: Any = wordnet if synonyms else NoSynonyms()
    nltks, sees = NLTKWordTokenizer(), whole if tokenizer == "unicode" else between_spaces

    def tokens(text: str) -> list[str]:
        return (
            words_of(text)
            if tokenizer == "unicode"
            else [token for sentence in split(text) for token in nltks.tokenize(sentence)]
        )

    found: list[dict[str, Any]] = []
    for answer in answers:
        if problem := not_comparable(answer.references, sees):
            found.append({"error": f"meteor: {problem}"})
        else:
            references = [tokens(one) for one in answer.references]
            found.append({"meteor": 100 * meteor_score(references, tokens(answer.text), wordnet=words)})
    return found
