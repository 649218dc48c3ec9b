"""Calibration against scikit-learn, and against bins counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from kdray.score.calibration import Choice, bins, calibration


@pytest.fixture
def choices() -> list[Choice]:
    dice = np.random.default_rng(3)
    return [Choice((4 * dice.normal(size=4)).tolist(), int(dice.integers(4))) for _ in range(200)]


@pytest.mark.slow
def test_brier_is_scikit_learns(choices):
    probabilities = np.array([choice.probabilities for choice in choices])
    expected = brier_score_loss(
        [choice.gold for choice in choices], probabilities, labels=[0, 1, 2, 3], scale_by_half=False
    )
    assert calibration(choices)[0]["brier"]["value"] == pytest.approx(expected)


@pytest.mark.slow
def test_calibration_error_is_the_sum_over_bins_counted_one_by_one(choices):
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = [
            c for c in choices if low <= max(c.probabilities) < low + 0.1 or (low == 0.9 and max(c.probabilities) == 1)
        ]
        if inside:
            confidence = sum(max(c.probabilities) for c in inside) / len(inside)
            accuracy = sum(c.chosen == c.gold for c in inside) / len(inside)
            expected += len(inside) / len(choices) * abs(confidence - accuracy)
    scores, kept = calibration(choices)
    assert scores["ece"]["value"] == pytest.approx(100 * expected)
    assert 0 < scores["ece"]["stderr"] < 10
    assert sum(b["n"] for b in kept) == 200


def test_a_sure_and_right_model_is_calibrated_and_has_no_wrong_answers():
    scores, _ = calibration([Choice([0.0, -800.0], 0), Choice([-800.0, 0.0], 1)])
    assert scores["ece"]["value"] == scores["brier"]["value"] == 0
    assert "wrong_nll" not in scores
    assert bins([Choice([0.0, -800.0], 0)])[-1].n == 1  # a confidence of one is in the last bin


def test_wrong_answers_are_as_sure_as_the_choice_that_was_taken():
    asked = [Choice([-1.0, -2.0], 0), Choice([-3.0, -0.5], 0), Choice([-0.25, -4.0], 1)]
    wrong = calibration(asked)[0]["wrong_nll"]
    assert (wrong["value"], wrong["n"]) == (0.375, 2)
    assert wrong["stderr"] == pytest.approx(0.125 * math.sqrt(2) / math.sqrt(2))
