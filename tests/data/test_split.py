"""The held-out rows: a fixed choice by source row, the same however the rows are cut, filtered or streamed."""

from __future__ import annotations

import numpy as np
import pytest

from kdray.data.split import FirstRows, RandomRows

PINNED = {"heldout": [10, 12, 21, 28, 31], "test": [19, 23, 35]}


def split(source_rows, heldout, test=0, batch=None):
    made = RandomRows(heldout, test)
    for start in range(0, len(source_rows), batch or len(source_rows)):
        made.add(np.array(source_rows[start : start + (batch or len(source_rows))]))
    return made.rows()


def test_the_choice_is_fixed_and_its_sides_are_disjoint():
    # Pinned: another choice would silently change every number ever published with this version.
    assert split(range(50), 5, 3) == PINNED
    assert not set(PINNED["heldout"]) & set(PINNED["test"])


@pytest.mark.parametrize("batch", [1, 7, 512, 5000])
def test_streaming_gives_what_all_rows_at_once_give(batch):
    source_rows = np.sort(np.random.default_rng(0).integers(0, 2000, 5000)).tolist()
    edges = np.flatnonzero(np.diff(source_rows)) + 1  # a source row's rows arrive together
    made = RandomRows(100, 50)
    for piece in np.split(np.array(source_rows), edges[::batch]):
        made.add(piece)
    assert made.rows() == split(source_rows, 100, 50)


def test_other_rows_may_go_without_moving_a_row_to_another_side():
    everything = split(range(1000), 100)["heldout"]
    left = [row for row in range(1000) if row % 3]
    chosen = [left[row] for row in split(left, 50)["heldout"]]
    assert set(chosen) <= set(everything)


def test_more_rows_held_out_contain_the_fewer():
    assert set(split(range(1000), 10)["heldout"]) < set(split(range(1000), 100)["heldout"])


def test_the_pieces_of_a_document_stay_together():
    source_rows = np.repeat(np.arange(300), 3)
    chosen = split(source_rows, 10, 10)
    assert {side: len(rows) for side, rows in chosen.items()} == {"heldout": 12, "test": 12}
    sides = [set(source_rows[rows].tolist()) for rows in chosen.values()]
    assert [len(side) for side in sides] == [4, 4]
    assert not sides[0] & sides[1]


def test_held_out_rows_lie_all_over_the_data():
    rows = np.array(split(range(100_000), 1000)["heldout"])
    tenths = np.bincount(rows // 10_000, minlength=10)
    assert tenths.min() > 60
    assert tenths.max() < 140
    assert abs((rows % 2).mean() - 0.5) < 0.07


@pytest.mark.parametrize(
    ("count", "heldout", "test", "sizes"), [(5, 9, 0, (5, 0)), (5, 3, 9, (3, 2)), (5, 5, 1, (5, 0)), (0, 2, 2, (0, 0))]
)
def test_too_few_rows_are_all_taken(count, heldout, test, sizes):
    chosen = split(range(count), heldout, test, batch=2)
    assert (len(chosen["heldout"]), len(chosen["test"])) == sizes


def test_memory_is_for_the_chosen_rows_alone():
    made = RandomRows(10, 5)
    for start in range(0, 100_000, 1000):
        made.add(np.arange(start, start + 1000))
        assert len(made.kept_keys) == len(made.kept_rows) == 15


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_the_first_rows_of_the_source_are_held_out_counting_those_that_were_left_out(batch):
    source_rows = [0, 2, 2, 3, 5, 6, 7, 7, 9, 11]  # 1, 4, 8 and 10 came to nothing, 2 and 7 to two pieces each
    made = FirstRows(heldout=4, test=3)
    for start in range(0, len(source_rows), batch):
        made.add(np.array(source_rows[start : start + batch]))
    assert made.rows() == {"heldout": [0, 1, 2, 3], "test": [4, 5]}
