"""Simulated time: what happens when, in seconds."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable


class Clock:
    """Runs what is due, one moment after the other."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call it so many seconds from now."""
        heapq.heappush(self._due, (self.now + seconds, next(self._order), call))

    @property
    def next(self) -> float | None:
        """When something is due."""
        return self._due[0][0] if self._due else None

    def tick(self) -> None:
        """Go to the next moment, and do all that is due then."""
        self.now = self._due[0][0]
        while self._due and self._due[0][0] <= self.now:
            heapq.heappop(self._due)[2]()
