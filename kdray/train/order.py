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


def share(
    batch: Sequence[int], lengths: Sequence[int] | np.ndarray, rank: int, world: int, micro_batch: int
) -> list[list[int]]:
    """The micro-batches of one rank: about equally many tokens a rank, similar lengths in a micro-batch.

    The longest first, each sequence goes to the rank with the fewest tokens so far. Every rank gets equally many
    micro-batches, as many as it takes to share the batch evenly; a spare one is empty (all masked).

    Args:
        batch: the rows of one optimiser step.
        lengths: their tokens.
        micro_batch: sequences in a micro-batch, at most.
    """
    count = math.ceil(math.ceil(len(batch) / world) / micro_batch)
    shares: list[list[int]] = [[] for _ in range(world)]
    tokens = [0] * world
    for i in sorted(range(len(batch)), key=lambda i: -lengths[i]):  # a stable sort: rows of one length keep their order
        to = min((r for r in range(world) if len(shares[r]) < count * micro_batch), key=lambda r: tokens[r])
        shares[to].append(batch[i])
        tokens[to] += lengths[i]
    return [part.tolist() for part in np.array_split(np.array(shares[rank], dtype=np.int64), count)]
