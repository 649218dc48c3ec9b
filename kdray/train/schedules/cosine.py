"""Half a cosine from lr down to `floor` times lr."""

from __future__ import annotations

import math

from kdray.spec import declare
from kdray.spec.parameters import Fraction

DECLARED = declare.Schedule(version=1)


def cosine(progress: float, *, floor: Fraction = 0.0) -> float:
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))
