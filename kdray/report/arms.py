"""The arms of a grid: points that share labels and alpha, one row of the table, to be compared with SFT."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kdray.spec.grid import Labels
from kdray.spec.points import Point

HARD = {"gold": "SFT", "teacher": "SeqKD", "both": "SFT + SeqKD"}  # names of training on hard labels alone


@dataclass(frozen=True)
class Arm:
    """Which responses are trained on, and the weight of their soft labels."""

    labels: Labels
    alpha: float

    @property
    def name(self) -> str:
        if self.alpha == 0:
            return HARD[self.labels]
        return f"KD {self.alpha:g}" if self.labels == "gold" else f"{HARD[self.labels]} + KD {self.alpha:g}"


BASELINE = Arm("gold", 0.0)


def arm_of(point: Point) -> Arm:
    return Arm(point.labels, point.alpha)


def arms_of(points: Iterable[Point]) -> list[Arm]:
    """The arms in the order of the points: of the original responses first, alphas rising."""
    return list(dict.fromkeys(map(arm_of, points)))
