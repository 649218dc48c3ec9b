"""How a step is cut over ranks and micro-batches."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kdray.train.order import share


@pytest.mark.parametrize(
    ("batch", "world", "micro"), [(1, 2, 4), (3, 2, 1), (8, 3, 2), (4, 4, 1), (5, 2, 2), (9, 2, 4), (7, 1, 3)]
)
def test_shares_cover_the_batch_and_every_rank_steps_equally_often(batch, world, micro):
    lengths = np.random.default_rng(batch).integers(1, 500, batch)
    shares = [share(list(range(batch)), lengths, rank, world, micro) for rank in range(world)]
    assert {len(parts) for parts in shares} == {math.ceil(math.ceil(batch / world) / micro)}
    assert sorted(row for parts in shares for part in parts for row in part) == list(range(batch))
    assert all(len(part) <= micro for parts in shares for part in parts)


def test_micro_batches_hold_similar_lengths_and_ranks_similar_work():
    lengths = np.random.default_rng(0).permutation(np.geomspace(30, 512, 64).astype(int))
    batch = list(range(100, 164))
    shares = [share(batch, lengths, rank, 4, 4) for rank in range(4)]
    tokens = [sum(lengths[row - 100] for part in parts for row in part) for parts in shares]
    assert max(tokens) < 1.05 * min(tokens)
    padded = sum(len(part) * max(lengths[row - 100] for row in part) for parts in shares for part in parts if part)
    assert padded < 1.3 * sum(lengths)  # cut as they come, they take 1.96 times their tokens
    assert shares == [share(batch, lengths, rank, 4, 4) for rank in range(4)]


def test_one_long_sequence_leaves_the_short_ones_to_the_other_rank():
    assert share([5, 6, 7, 8], [10, 10, 400, 10], 0, 2, 4) == [[7]]
    assert share([5, 6, 7, 8], [10, 10, 400, 10], 1, 2, 4) == [[5, 6, 8]]


def test_a_row_that_a_batch_holds_twice_is_trained_on_twice():
    parts = [share([4, 9, 4], [20, 30, 20], rank, 2, 1) for rank in range(2)]
    assert sorted(row for rank in parts for part in rank for row in part) == [4, 4, 9]
