"""How far a model's confidence in its choices can be trusted, from the log-likelihoods of the choices.

A choice's probability is its likelihood over the sum of all choices'. The Brier score is the squared distance of
these from the truth, summed over the choices (0 to 2). The expected calibration error (Guo et al., arXiv
1706.04599) is the mean distance of confidence and accuracy over ten bins of equal width, weighted by their counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from kdray.data.estimates import mean

BINS = 10
DRAWS = 200  # of the bootstrap


@dataclass(frozen=True)
class Choice:
    """A question's answer: the log-likelihoods of its choices (nats), and which one is right."""

    loglikelihoods: Sequence[float]
    gold: int

    @property
    def chosen(self) -> int:
        """The most likely choice, the first of equals."""
        return int(np.argmax(self.loglikelihoods))

    @property
    def probabilities(self) -> np.ndarray:
        logs = np.asarray(self.loglikelihoods, dtype=np.float64)
        weights = np.exp(logs - logs.max())
        return weights / weights.sum()

    @property
    def brier(self) -> float:
        return float(((self.probabilities - np.eye(len(self.loglikelihoods))[self.gold]) ** 2).sum())


@dataclass(frozen=True)
class Bin:
    """The questions answered with a confidence in [low, high), or 1 in the last bin; means are 0 where there are
    none.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def bins(choices: Sequence[Choice]) -> list[Bin]:
    """Confidence and accuracy in `BINS` bins."""
    confidence = np.array([choice.probabilities.max() for choice in choices])
    right = np.array([choice.chosen == choice.gold for choice in choices], dtype=np.float64)
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    means = [np.bincount(place, values, BINS) / np.maximum(counts, 1) for values in (confidence, right)]
    return [Bin(i / BINS, (i + 1) / BINS, int(counts[i]), float(means[0][i]), float(means[1][i])) for i in range(BINS)]


def expected_error(filled: Sequence[Bin]) -> float:
    """The expected calibration error, 0 to 1."""
    return sum(b.n * abs(b.confidence - b.accuracy) for b in filled) / sum(b.n for b in filled)


def calibration(choices: Sequence[Choice]) -> tuple[dict[str, dict[str, float]], list[dict[str, float]]]:
    """{metric: {value, stderr, n}} and the bins.

    `ece` is in percent, its standard error by bootstrap; `brier` and `wrong_nll` are means over questions. The latter
    is over wrong answers only: the negative log-likelihood (nats) of the choice that was taken.
    """
    found = bins(choices)
    dice = np.random.default_rng(0)
    draws = [
        [choices[i] for i in dice.integers(len(choices), size=len(choices))]
        for _ in range(DRAWS if len(choices) > 1 else 0)
    ]
    spread = statistics.stdev(expected_error(bins(draw)) for draw in draws) if draws else 0.0
    scores = {"ece": {"value": 100 * expected_error(found), "stderr": 100 * spread, "n": len(choices)}}
    scores["brier"] = mean([choice.brier for choice in choices])
    if wrong := [-choice.loglikelihoods[choice.chosen] for choice in choices if choice.chosen != choice.gold]:
        scores["wrong_nll"] = mean(wrong)
    return scores, [asdict(b) for b in found]
