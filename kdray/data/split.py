"""Which prepared rows are never trained on: a random choice that depends on the source row's number alone, or the first
rows.

The random one can be made while rows stream by, in memory for the chosen ones, and the same source rows are held out
whatever the tokenizer, the template or the lengths: families are compared on the same rows.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

SEED = 20250  # one fixed choice for every grid: prepared rows never depend on a point's seed


class Split(Protocol):
    """Chooses among prepared rows that stream by."""

    def add(self, source_rows: np.ndarray) -> None:
        """The next prepared rows, as the numbers [n] of the source rows that they were made of."""

    def rows(self) -> dict[str, list[int]]:
        """The chosen prepared rows by side, `heldout` and `test`, ascending. All others are for training."""
        ...


def make_split(kind: str, heldout: int, test: int) -> Split:
    """The `random` split, or the `first` source rows."""
    return FirstRows(heldout, test) if kind == "first" else RandomRows(heldout, test)


class FirstRows:
    """Takes what was made of the first source rows as `heldout`, and of the next ones as `test`; rows left out count
    too.
    """

    def __init__(self, heldout: int, test: int) -> None:
        self.ends = {"heldout": heldout, "test": heldout + test}
        self._seen = 0
        self._chosen: dict[str, list[int]] = {"heldout": [], "test": []}

    def add(self, source_rows: np.ndarray) -> None:
        for place, number in enumerate(source_rows.tolist(), self._seen):
            if side := next((side for side, end in self.ends.items() if number < end), None):
                self._chosen[side].append(place)
        self._seen += len(source_rows)

    def rows(self) -> dict[str, list[int]]:
        return self._chosen


class RandomRows:
    """Takes the source rows with the smallest hashes: the first ones as `heldout`, the next ones as `test`.

    All rows made of one source row (a document's pieces) stay on one side, so a side may get some more than asked.
    """

    def __init__(self, heldout: int, test: int) -> None:
        self.wanted = {"heldout": heldout, "test": test}
        self._seen = 0
        # The hashes that may still be chosen, smallest first, and the rows that have them.
        self.kept_keys = np.empty(0, dtype=np.uint64)
        self.kept_rows = np.empty(0, dtype=np.int64)

    def add(self, source_rows: np.ndarray) -> None:
        keys = np.concatenate([self.kept_keys, mixed(source_rows, SEED)])
        rows = np.concatenate([self.kept_rows, np.arange(self._seen, self._seen + len(source_rows))])
        self._seen += len(source_rows)
        order = np.argsort(keys, kind="stable")
        self.kept_keys, self.kept_rows = keys[order], rows[order]
        end = list(self._ends().values())[-1]
        self.kept_keys, self.kept_rows = self.kept_keys[:end], self.kept_rows[:end]

    def rows(self) -> dict[str, list[int]]:
        begin, chosen = 0, {}
        for side, end in self._ends().items():
            chosen[side] = sorted(self.kept_rows[begin:end].tolist())
            begin = end
        return chosen

    def _ends(self) -> dict[str, int]:
        """Where each side ends in the order of hashes: behind the last row of the source row that fills it."""
        end, ends = 0, {}
        for side, wanted in self.wanted.items():
            if wanted and end < len(self.kept_keys):
                last = self.kept_keys[min(end + wanted, len(self.kept_keys)) - 1]
                end = int(np.searchsorted(self.kept_keys, last, side="right"))
            ends[side] = end
        return ends


def mixed(numbers: np.ndarray, seed: int) -> np.ndarray:
    """[n] integers to [n] well mixed, all different uint64: the output function of SplitMix64 (Steele, Lea and Flood,
    "Fast splittable pseudorandom number generators", 2014). That of a number with the next seed is the next number's.
    """
    found = (numbers.astype(np.uint64) + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
    found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return found ^ (found >> np.uint64(31))
