from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from kdray.data.estimates import mean, pooled_mean


def test_a_mean_has_scipys_standard_error() -> None:
    values = [3.0, 1.0, 4.0, 1.5]
    assert mean(values) == {"value": pytest.approx(np.mean(values)), "stderr": pytest.approx(stats.sem(values)), "n": 4}
    assert mean([2.0]) == {"value": 2.0, "stderr": 0.0, "n": 1}


def test_a_pooled_mean_is_that_of_all_parts_and_with_equal_counts_the_mean() -> None:
    values, counts = [3.0, 1.0, 4.0], [1, 5, 2]
    assert pooled_mean(values, counts)["value"] == pytest.approx(np.mean(np.repeat(values, counts)))
    assert pooled_mean(values, [7, 7, 7]) == pytest.approx(mean(values))
    assert pooled_mean([2.0], [3]) == {"value": 2.0, "stderr": 0.0, "n": 1}


def test_the_pooled_standard_error_is_the_spread_of_the_estimate_over_many_draws() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 9, (4000, 100))
    values = rng.normal(
        counts / 4, 1.0
    )  # of examples, longer ones higher: neither iid parts nor a plain mean would fit
    found = [pooled_mean(value.tolist(), count.tolist()) for value, count in zip(values, counts, strict=True)]
    assert np.mean([each["stderr"] for each in found]) == pytest.approx(
        np.std([each["value"] for each in found]), rel=0.05
    )
