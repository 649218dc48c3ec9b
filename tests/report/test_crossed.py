"""The interval over items and cells: against scipy where only one of them is a sample, and against grids whose truth is
known.
"""

from __future__ import annotations

import importlib.util
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from kdray.report.crossed import Effects, crossed, exact, holm
from tests.conftest import ROOT

RNG = np.random.default_rng(0)


def reference(differences: np.ndarray) -> tuple[float, float]:
    """The variance of the mean and its degrees of freedom, by sums over all pairs of entries that share a cell or an
    item.

    Entries that share a cell covary by the variance of a cell's effect, and so on: each is estimated by the mean
    product of such pairs about the mean, in float64 and without a table of variances.
    """
    cells, items = differences.shape
    table = [(c, i, differences[c, i]) for c in range(cells) for i in range(items)]
    mean = sum(value for *_, value in table) / len(table)
    of_cell = {c: sum(v for d, _, v in table if d == c) / items - mean for c in range(cells)}
    of_item = {i: sum(v for _, j, v in table if j == i) / cells - mean for i in range(items)}
    left = sum((v - mean - of_cell[c] - of_item[i]) ** 2 for c, i, v in table) / ((cells - 1) * (items - 1))
    a = sum(e * e for e in of_cell.values()) / (cells - 1)
    b = sum(e * e for e in of_item.values()) / (items - 1)
    size = cells * items
    total = a / cells + b / items - left / size
    noise = (
        (a / cells) ** 2 / (cells - 1)
        + (b / items) ** 2 / (items - 1)
        + (left / size) ** 2 / ((cells - 1) * (items - 1))
    )
    return total, total * total / noise


def test_variances_are_those_of_the_definition() -> None:
    values = RNG.normal(0, 1, (4, 7)) + RNG.normal(0, 2, (4, 1)) + RNG.normal(0, 1, (1, 7))
    found = crossed(values)
    assert found
    variance, df = reference(values)
    assert found.error**2 == pytest.approx(variance)
    assert found.df == pytest.approx(df)
    half = stats.t.ppf(0.975, df) * variance**0.5
    assert found.interval() == pytest.approx((values.mean() - half, values.mean() + half))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(values.mean()) / variance**0.5, df))


@pytest.mark.parametrize("shape", [(1, 30), (30, 1)])
def test_of_one_cell_or_one_item_it_is_students_t(shape: tuple[int, int]) -> None:
    values = RNG.normal(0.3, 1, shape)
    found, test = crossed(values), stats.ttest_1samp(values.ravel(), 0)
    assert found
    assert (found.effects is None) == (shape[1] == 1)
    if found.effects:
        assert found.effects.error(1, 30) == (pytest.approx(found.error), found.df)
    assert found.p == pytest.approx(test.pvalue)
    assert found.interval(0.1) == pytest.approx(tuple(test.confidence_interval(0.9)))


def test_one_number_has_no_error_and_equal_ones_no_difference() -> None:
    assert crossed(np.ones((1, 1))) is None
    same = crossed(np.zeros((3, 5)))
    assert same
    assert (same.interval(), same.p) == ((0.0, 0.0), 1.0)


def test_cells_that_do_not_differ_leave_items_alone_as_a_sample() -> None:
    items = RNG.normal(0, 1, 50)
    values = np.stack([items + noise - noise.mean() for noise in RNG.normal(0, 0.3, (5, 50))])
    found = crossed(values)
    assert found
    test = stats.ttest_1samp(values.mean(0), 0)
    assert found.df == 49
    assert found.p == pytest.approx(test.pvalue)


def test_of_two_cells_the_wider_interval_holds() -> None:
    apart, alike = (
        np.array([[-1.0], [1.0]]) + RNG.normal(0, 0.1, (2, 40)),
        RNG.normal(0, 1, (1, 40)) + RNG.normal(0, 0.01, (2, 40)),
    )
    for values, axis in ((apart, 1), (alike, 0)):
        found, test = crossed(values), stats.ttest_1samp(values.mean(axis), 0)
        assert found
        assert found.interval() == pytest.approx(tuple(test.confidence_interval(0.95)))


def test_of_two_cells_it_is_the_wider_one_at_every_level() -> None:
    """At 95% that over items is wider here, at 99% that over cells, whose one degree of freedom tells then."""
    items = RNG.normal(0, 1, 40)
    values = np.stack([items - 0.02, items + 0.02]) - items.mean() + 1.0
    of_items, of_cells = (stats.ttest_1samp(values.mean(axis), 0) for axis in (0, 1))
    found = crossed(values)
    assert found
    for level, wider in ((0.05, of_items), (0.005, of_cells)):
        assert found.interval(level) == pytest.approx(tuple(wider.confidence_interval(1 - level)))
    assert of_items.pvalue < of_cells.pvalue
    assert found.p == pytest.approx(of_cells.pvalue)
    assert found.widened(0.3).interval(0.005) == pytest.approx(
        tuple(1 + side * stats.t.ppf(0.9975, 1) * math.hypot(0.02, 0.3) for side in (-1, 1))
    )


def test_answers_of_one_cell_are_tested_by_mcnemar() -> None:
    values = np.array([[1.0] * 9 + [-1.0] * 2 + [0.0] * 30])
    assert exact(values) == pytest.approx(stats.binomtest(2, 11).pvalue)
    assert exact(np.zeros((1, 5))) == 1.0
    assert exact(100 * values) == exact(values)
    assert exact(np.repeat(values, 2, axis=0)) is None


def test_holm_is_the_closed_test_of_bonferronis() -> None:
    """A hypothesis falls at a level if every set that it is in does: p is the largest of all sets' Bonferroni p."""
    ps = [0.01, 0.04, 0.03, 0.005, 0.9, 0.03]
    every = range(len(ps))
    sets = [chosen for size in every for chosen in itertools.combinations(every, size + 1)]
    wanted = [max(min(1.0, len(chosen) * min(ps[k] for k in chosen)) for chosen in sets if i in chosen) for i in every]
    assert holm(ps) == pytest.approx(wanted)
    assert holm([]) == []


def test_the_smallest_difference_is_found_four_times_in_five() -> None:
    """Planted into made-up grids, the difference that is said to be found with a power of 80% is."""
    effects, (cells, items) = Effects(0.01, 0.1, 1.0), (6, 200)
    planted, seen = effects.smallest(cells, items), 0
    for _ in range(400):
        noise = RNG.normal(0, 0.1, (cells, 1)) + RNG.normal(0, 0.1**0.5, (1, items)) + RNG.normal(0, 1, (cells, items))
        found = crossed(noise + planted)
        assert found
        seen += found.p < 0.05
    assert seen / 400 == pytest.approx(0.8, abs=0.06)
    assert effects.smallest(12, items) < planted
    assert effects.smallest(cells, 2 * items) < planted
    assert Effects(0.0, 0.1, 1.0).error(1, 100) == (pytest.approx((1.1 / 100) ** 0.5), 99)


def test_of_two_cells_the_smallest_difference_is_seen_by_the_wider_interval() -> None:
    """Over items alone it would be a fifth of it, and found one time in five."""
    effects, seen = Effects(0.0, 0.09, 1.0), 0
    planted = effects.smallest(2, 200)
    for _ in range(300):
        found = crossed(RNG.normal(0, 0.3, (1, 200)) + RNG.normal(0, 1, (2, 200)) + planted)
        assert found
        low, high = found.interval()
        seen += not low <= 0 <= high
    assert seen / 300 == pytest.approx(0.8, abs=0.07)


@pytest.mark.slow
def test_the_interval_covers_what_was_planted() -> None:
    """A short version of benchmarks/intervals.py; t over the cells alone misses far more often."""
    spec = importlib.util.spec_from_file_location("intervals", ROOT / "benchmarks" / "intervals.py")
    assert spec
    assert spec.loader
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    rng, grids = np.random.default_rng(3), 300
    for binary in (False, True):
        hits = alone = 0
        for _ in range(grids):
            values = bench.drawn(rng, 6, 60, 0.05, 0.8, binary) + 0.2
            found = crossed(values)
            assert found
            for low, high in (found.interval(),):
                hits += low <= 0.2 <= high
            low, high = bench.of_cells(values)
            alone += low <= 0.2 <= high
        assert 0.92 <= hits / grids <= 0.99
        assert alone < hits
    assert bench.best_of(150)["at_once"] <= 6
