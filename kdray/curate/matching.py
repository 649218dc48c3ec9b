"""Which entries of the metadata stand in a text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import regex

from kdray.curate.words import folded
from kdray.data.words import UNSPACED

INSIDE = regex.compile(r"[\p{L}\p{M}\p{N}_]")  # of words
APART = regex.compile(f"[{UNSPACED}]")  # words of their own


class Matcher:
    """Finds the entries of one language, all at once, by an Aho-Corasick automaton.

    Where words are written apart, an entry is found as whole words: `art` is not in `party`. In scripts without spaces
    it is found wherever it stands.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        import ahocorasick_rs  # only grids that curate need it

        self._automaton = ahocorasick_rs.AhoCorasick(entries, store_patterns=False)

    def __call__(self, text: str) -> np.ndarray:
        """The numbers [n] of the folded entries in a text as it is, ascending, each once."""
        text = folded(text)
        found = self._automaton.find_matches_as_indexes(text, overlapping=True)
        whole = {entry for entry, begin, end in found if _ends(text, begin) and _ends(text, end)}
        return np.array(sorted(whole), dtype=np.int32)


def _ends(text: str, place: int) -> bool:
    """Whether a word may end, or begin, before the character at `place`."""
    if not 0 < place < len(text):
        return True
    before, behind = text[place - 1], text[place]
    inside = INSIDE.match(before) and INSIDE.match(behind)
    return not inside or bool(APART.match(before) or APART.match(behind))
