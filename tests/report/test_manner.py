"""Length and copying of answers, against an example worked out by hand and the published algorithm."""

from __future__ import annotations

import numpy as np
import pytest

from kdray.report.manner import Manner, adjusted, fragments, manner_of


def published(answer: list[str], source: list[str]) -> list[int]:
    """Figure 3 of Grusky et al. 2018, as it is printed: a greedy search without an index."""
    found, i, j = [], 0, 0
    while i < len(answer):
        best = 0
        while j < len(source):
            if answer[i] == source[j]:
                a, b = i, j
                while a < len(answer) and b < len(source) and answer[a] == source[b]:
                    a, b = a + 1, b + 1
                best, j = max(best, a - i), b
            else:
                j += 1
        found += [best] if best else []
        i, j = i + max(best, 1), 0
    return found


def test_copying_by_hand() -> None:
    source = "The old bridge over the river was closed on Monday after cracks were found"
    answer = "The bridge over the river closed after cracks were found in it."
    # the | bridge over the river | closed | after cracks were found | in, it are new
    assert manner_of(answer, source) == Manner(12, 10 / 12, pytest.approx((1 + 16 + 1 + 16) / 12))
    assert manner_of("Bridge!", "a bridge") == Manner(1, 1.0, 1.0)  # case and punctuation do not matter
    assert manner_of("none of it", "") == Manner(3, None, None)
    assert manner_of("", source) == Manner(0, None, None)


def test_fragments_are_those_of_the_published_algorithm() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        source, answer = ([str(word) for word in rng.integers(0, 6, size)] for size in (40, 15))
        ours, theirs = fragments(answer, source), published(answer, source)
        assert sum(ours) == sum(
            theirs
        )  # the printed search goes on behind a match, and may miss a longer one that began within it
        assert max(ours) >= max(theirs)


def test_what_is_left_at_equal_length_and_copying() -> None:
    """Scores that follow length alone have nothing left; a gain beside it is left whole."""
    rng = np.random.default_rng(1)
    words, copied = rng.normal(-0.5, 0.3, (4, 200)), rng.normal(0.2, 0.1, (4, 200))
    noise = rng.normal(0, 0.1, (4, 200))
    only, beside = (adjusted(gain - 3 * words + 5 * copied + noise, [words, copied]) for gain in (0.0, 2.0))
    assert only
    assert beside
    assert only.mean == pytest.approx(0.0, abs=0.05)
    assert beside.mean == pytest.approx(2.0, abs=0.05)


def test_an_item_that_every_run_answers_at_length_says_nothing_of_length() -> None:
    """Hard articles may get long answers and low scores in every cell: within items there is no such slope."""
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 1, (1, 300))
    words = hard + rng.normal(0, 0.2, (5, 300))
    values = -4 * hard + rng.normal(0, 0.1, (5, 300)) + 1
    left = adjusted(values, [words])
    assert left
    assert left.mean == pytest.approx(values.mean(), abs=0.05)


def test_the_interval_knows_that_slopes_are_estimates() -> None:
    """It would cover 88% if they were taken for known."""
    hits = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        copied = rng.uniform(-0.2, 0.6, (3, 60))
        found = adjusted(100 * copied + rng.normal(0, 6, (3, 60)), [np.zeros((3, 60)), copied])
        assert found
        low, high = found.interval()
        hits += low <= 0 <= high
    assert 0.92 <= hits / 300 <= 0.99
