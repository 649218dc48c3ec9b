"""Which examples meet in which step: a function of seed and batch alone, the same at every alpha and lr."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np


class Order:
    """An endless stream of shuffled epochs, cut into batches: every batch is full and no row is left out."""

    def __init__(self, rows: Sequence[int] | np.ndarray, batch: int, seed: int) -> None:
        self.rows, self.batch, self.seed = np.asarray(rows), batch, seed
        self._epoch = functools.lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.Generator(np.random.PCG64([self.seed, epoch])).permutation(self.rows)

    def batch_at(self, step: int) -> list[int]:
        """The rows of optimiser step `step` (counted from 0)."""
        begin = step * self.batch
        return [int(self._epoch(i // len(self.rows))[i % len(self.rows)]) for i in range(begin, begin + self.batch)]

    def steps(self, epochs: float) -> int:
        """The steps in so many epochs, at least one."""
        return max(1, round(epochs * len(self.rows) / self.batch))


def share(batch: list[int], rank: int, world: int, micro_batch: int) -> list[list[int]]:
    """The micro-batches of one rank. Every rank gets equally many; a spare one gets empty ones (all masked)."""
    mine = batch[rank::world]
    longest_share = math.ceil(len(batch) / world)
    count = math.ceil(longest_share / micro_batch)
    return [mine[i * micro_batch : (i + 1) * micro_batch] for i in range(count)]
