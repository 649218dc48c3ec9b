"""Words of a text, and the words and pairs of words of a corpus that make its metadata."""

from __future__ import annotations

import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import regex

from kdray.data.words import UNSPACED

WORD = regex.compile(r"[\p{L}\p{M}\p{N}_]+(?:['\u2019][\p{L}\p{M}]+)*")
RUN = regex.compile(f"[{UNSPACED}]")
POWER, PERCENTILE = 0.7, 30  # of the score of pairs
COUNTS = pa.schema([("one", pa.large_string()), ("other", pa.large_string()), ("count", pa.int64())])
ADDED = 2**20  # rows that are kept as they came, at least


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
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, text: str) -> None:
        found = [(match[0], *match.span()) for match in WORD.finditer(text) if not RUN.search(match[0])]
        self.single.update(word for word, _, _ in found)
        for (one, _, end), (other, begin, _) in itertools.pairwise(found):
            if text[end:begin] == " ":
                self.pairs[one, other] += 1

    def table(self) -> pa.Table:
        """As a table of `COUNTS`; a word by itself has no `other`."""
        rows = [(word, None, count) for word, count in self.single.items()]
        pairs = [(*pair, count) for pair, count in self.pairs.items()]
        return pa.table(list(zip(*rows, *pairs, strict=True)) or [[]] * 3, schema=COUNTS)


class Counted:
    """How often the words and pairs of a whole corpus occur: tables of `COUNTS`, added up as they come. A pair takes
    some 35 bytes, a fifth of what it would in a dictionary.
    """

    def __init__(self) -> None:
        self._tables = [COUNTS.empty_table()]

    def add(self, table: pa.Table) -> None:
        self._tables.append(table)
        if sum(some.num_rows for some in self._tables[1:]) > max(self._tables[0].num_rows, ADDED):
            self._add_up()

    def entries(self, least: int, most_pairs: int) -> list[str]:
        """Words, the most frequent first, and the best pairs with a score above 0, that occur `least` times and
        more.
        """
        self._add_up()
        alone = self._tables[0]["other"].is_null().to_numpy()
        words, pairs = (self._tables[0].filter(pa.array(mask)) for mask in (alone, ~alone))
        counts = words["count"].to_numpy()
        often = words.filter(pa.array(counts >= least))
        found = often.sort_by([("count", "descending"), ("one", "ascending")])["one"].to_pylist()
        among = pc.SetLookupOptions(words["one"])
        places = (pc.call_function("index_in", [pairs[name]], among).to_numpy() for name in ("one", "other"))
        one, other = (counts[place] for place in places)
        scores = pair_scores(pairs["count"].to_numpy(), one, other, int(counts.sum()))
        good = (scores > 0) & (pairs["count"].to_numpy() >= least)
        scored = pairs.append_column("score", pa.array(scores)).filter(pa.array(good))
        best = scored.sort_by([("score", "descending"), ("one", "ascending"), ("other", "ascending")])[:most_pairs]
        return [*found, *(f"{pair['one']} {pair['other']}" for pair in best.to_pylist())]

    def _add_up(self) -> None:
        """Make one table of all."""
        summed = pa.concat_tables(self._tables).group_by(["one", "other"]).aggregate([("count", "sum")])
        self._tables = [summed.rename_columns(COUNTS.names)]


def pair_scores(pairs: np.ndarray, one: np.ndarray, other: np.ndarray, words: int) -> np.ndarray:
    """[n] scores [c(v, w) + 1]^0.7 (PMI(v, w) - PMI_30%) of all pairs (MetaCLIP 2, 6.3.4), in nats.

    PMI(v, w) = log c(v, w) N / (c(v) c(w)) with N words in all; PMI_30% is the 30th percentile of those of all pairs.

    Args:
        pairs: [n] how often each pair occurs.
        one, other: [n] how often its first and its second word do.
        words: N.
    """
    if not len(pairs):
        return np.empty(0)
    pmi = np.log(pairs * (words / one) / other)
    return (pairs + 1.0) ** POWER * (pmi - np.percentile(pmi, PERCENTILE))


def all_entries(given: Iterable[str]) -> list[str]:
    """Entries as they are matched: folded, each once, sorted; without empty ones."""
    return sorted({entry for text in given if (entry := folded(text))})
