"""Words of a text, and the words and pairs of words of a corpus that make its metadata."""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import regex

from kdray.data.words import UNSPACED

WORD = regex.compile(r"[\p{L}\p{M}\p{N}_]+(?:['\u2019][\p{L}\p{M}]+)*")
RUN = regex.compile(f"[{UNSPACED}]")
POWER, PERCENTILE = 0.7, 30  # of the score of pairs
Pair = tuple[str, str]


def folded(text: str) -> str:
    """A text as it is matched: compatibility forms and case folded, one space between what stands apart."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


@dataclass
class Words:
    """How often words and pairs of neighbouring words occur in folded texts.

    A pair stands in one text with nothing but a space between. Runs of a script without spaces are no words, and pairs
    do not reach over them: such languages want metadata of their own.
    """

    single: Counter[str] = field(default_factory=Counter)
    pairs: Counter[Pair] = field(default_factory=Counter)

    def add(self, text: str) -> None:
        found = [(match[0], *match.span()) for match in WORD.finditer(text) if not RUN.search(match[0])]
        self.single.update(word for word, _, _ in found)
        for (one, _, end), (other, begin, _) in itertools.pairwise(found):
            if text[end:begin] == " ":
                self.pairs[one, other] += 1

    def entries(self, least: int, most_pairs: int) -> Iterator[str]:
        """Words, and the best pairs with a score above 0, that occur `least` times and more."""
        yield from (word for word, count in self.single.items() if count >= least)
        scores = ((score, pair) for pair, score in pair_scores(self.single, self.pairs).items() if score > 0)
        best = sorted(scores, key=lambda found: (-found[0], found[1]))
        often = (pair for _, pair in best if self.pairs[pair] >= least)
        yield from (" ".join(pair) for _, pair in zip(range(most_pairs), often, strict=False))


def pair_scores(single: Mapping[str, int], pairs: Mapping[Pair, int]) -> dict[Pair, float]:
    """[c(v, w) + 1]^0.7 (PMI(v, w) - PMI_30%) of every pair (MetaCLIP 2, 6.3.4), in nats.

    PMI(v, w) = log c(v, w) N / (c(v) c(w)) with N words in all; PMI_30% is the 30th percentile of those of all pairs.
    """
    if not pairs:
        return {}
    counts = np.array(list(pairs.values()), dtype=np.float64)
    product = np.array([single[one] * single[other] for one, other in pairs], dtype=np.float64)
    pmi = np.log(counts * sum(single.values()) / product)
    scores = (counts + 1) ** POWER * (pmi - np.percentile(pmi, PERCENTILE))
    return dict(zip(pairs, scores.tolist(), strict=True))


def all_entries(given: Iterable[str]) -> list[str]:
    """Entries as they are matched: folded, each once, sorted; without empty ones."""
    return sorted({entry for text in given if (entry := folded(text))})
