"""The arms of a grid: points that share labels and alpha, one row of the table, to be compared with SFT."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from kdray.spec.points import Point
from kdray.spec.sections.base import Labels, RowsOf

HARD = {
    "gold": "SFT",
    "student": "SFT",
    "teacher": "SeqKD",
    "both": "SFT + SeqKD",
}  # names of training on hard labels alone


@dataclass(frozen=True)
class Arm:
    """Which rows and responses are trained on, smoothed or not, the weight of their soft labels, the teacher where
    there is a choice, the share of on-policy steps, and whether citing was learned after that.
    """

    labels: Labels
    alpha: float
    teacher: str = ""
    smoothing: float = 0.0
    temperature: float = 1.0
    on_policy: float = 0.0
    rows: RowsOf = "all"
    aligned: bool = False

    @property
    def name(self) -> str:
        smoothed = f" smoothed {self.smoothing:g}" if self.smoothing else ""
        own = self.labels in ("gold", "student")
        hard = "" if own and self.alpha and not smoothed else f"{HARD[self.labels]}{smoothed}"
        share = "" if self.on_policy == 1 else f" {self.on_policy:g}"
        steps = f"on-policy{share} " if self.labels == "student" else ""
        at = f" T={self.temperature:g}" if self.temperature != 1 else ""
        terms = " + ".join(filter(None, [hard, f"{steps}KD {self.alpha:g}{at}" if self.alpha else ""]))
        chosen = f", {self.rows} rows" if self.rows != "all" else ""
        behind = ", aligned" if self.aligned else ""
        return (f"{terms} ({self.teacher})" if self.teacher else terms) + chosen + behind


BASELINE = Arm("gold", 0.0)


def arm_of(point: Point) -> Arm:
    return Arm(**{field.name: getattr(point, field.name) for field in fields(Arm)})


def arms_of(points: Iterable[Point]) -> list[Arm]:
    """The arms in the order of the points: of the original responses first, teacher by teacher, alphas rising."""
    return list(dict.fromkeys(map(arm_of, points)))
