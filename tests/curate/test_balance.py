"""Thresholds and chances, against algorithm 2 of the chapter on ten rows."""

from __future__ import annotations

import numpy as np
import pytest

from kdray.curate.balance import at_random, draws, entry_chances, row_chances, tail_share, threshold_of

# Ten rows over the entries dog, cat, axolotl, quoll; the last row matches none.
ROWS = [[0], [0], [0], [0, 1], [0, 1], [0, 2], [1], [1], [3, 0], []]
COUNTS = np.array([7, 4, 1, 1])


def test_the_hand_made_counts_are_those_of_the_rows() -> None:
    assert [sum(entry in row for row in ROWS) for entry in range(4)] == COUNTS.tolist()


def test_from_a_threshold_to_the_tail_and_back() -> None:
    assert tail_share(2, COUNTS) == 2 / 13
    assert tail_share(5, COUNTS) == 6 / 13
    # Counted from the rarest, 1/13, 2/13, 6/13 and 13/13 of the matches.
    assert threshold_of(2 / 13, COUNTS) == 1
    assert threshold_of(6 / 13, COUNTS) == 4
    assert threshold_of(0.9, COUNTS) == 7


def test_the_algorithm_as_it_is_printed_gives_the_same_threshold() -> None:
    counts = np.random.default_rng(0).zipf(1.7, 500)
    for share in (0.03, 0.06, 0.1, 0.5):
        ordered = np.sort(counts)
        printed = ordered[(np.abs(np.cumsum(ordered) / ordered.sum() - share)).argmin()]
        assert threshold_of(share, counts) == printed


def test_entries_that_nothing_matches_change_no_threshold() -> None:
    assert threshold_of(0.01, np.array([0, 0, *COUNTS])) == threshold_of(0.01, COUNTS) == 1
    assert threshold_of(0.06, np.zeros(3, np.int64)) == 1
    assert tail_share(3, np.zeros(3, np.int64)) == 0


def test_rows_have_the_chance_that_one_of_their_entries_is_drawn() -> None:
    chances = entry_chances(2, COUNTS)
    assert chances.tolist() == pytest.approx([2 / 7, 1 / 2, 1, 1])
    flat = [(chances[entry], row) for row, entries in enumerate(ROWS) for entry in entries]
    found = row_chances(np.array([chance for chance, _ in flat]), np.array([row for _, row in flat]), len(ROWS))
    both = 1 - (1 - 2 / 7) * (1 - 1 / 2)
    assert found.tolist() == pytest.approx([2 / 7] * 3 + [both] * 2 + [1, 1 / 2, 1 / 2, 1, 0])


def test_draws_are_even_and_do_not_depend_on_how_rows_are_cut() -> None:
    rows = np.arange(20_000)
    drawn = draws(rows, 7)
    assert np.concatenate([draws(rows[:77], 7), draws(rows[77:], 7)]).tolist() == drawn.tolist()
    assert ((drawn >= 0) & (drawn < 1)).all()
    for chance in (0.1, 0.5, 0.9):
        assert (drawn < chance).mean() == pytest.approx(chance, abs=0.01)


def test_seeds_draw_anew() -> None:
    rows = np.arange(5000)
    for shift in (0, 1):  # a seed's draws are not those of the next one, one row further
        pair = np.corrcoef(draws(rows, 0), draws(rows + shift, 1))
        assert abs(pair[0, 1]) < 0.06


def test_the_control_is_as_large_and_has_nothing_to_do_with_the_draws() -> None:
    rows = np.arange(3, 4003)
    control = at_random(rows, 1000, 0)
    assert len(set(control.tolist())) == 1000
    assert control.tolist() == sorted(control.tolist())
    kept = draws(rows, 0) < 0.25
    assert np.isin(rows[kept], control).mean() == pytest.approx(0.25, abs=0.05)
    assert at_random(rows, 1000, 1).tolist() != control.tolist()
