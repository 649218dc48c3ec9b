"""lr all the way."""

from __future__ import annotations

from kdray.spec import declare

DECLARED = declare.Schedule(version=1)


def constant(progress: float) -> float:
    return 1.0
