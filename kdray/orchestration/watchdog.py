"""A run that stands still says so, once, and what it waits for.

Everything that moves is told: bars that advance, and lines that are said. The dog hears both on their way to whoever
shows them, and after minutes without either it barks.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from kdray.orchestration.progress import Bar, Progress
from kdray.orchestration.work import Work
from kdray.plan.progress import training_status

PATIENCE = 300.0  # seconds
TICK = 5.0  # seconds between looks at the clock


class Watchdog(Progress):
    """Passes on what a run tells, and says what `awaited` gives where nothing moves. Use as a context manager."""

    def __init__(self, progress: Progress, patience: float = PATIENCE, tick: float = TICK) -> None:
        self._progress, self._patience, self._tick = progress, patience, tick
        self.awaited: Callable[[], str] = lambda: ""
        self._moved, self._barked = time.monotonic(), False
        self._bars: list[_Heard] = []  # of stages that go on
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="kdray-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def say(self, text: str) -> None:
        self.moved()
        self._progress.say(text)

    @contextlib.contextmanager
    def bar(self, title: str, total: float, unit: str = "") -> Iterator[Bar]:
        with self._progress.bar(title, total, unit) as bar:
            heard = _Heard(bar, self, title, total, unit)
            self._bars.append(heard)
            self.moved()
            try:
                yield heard
            finally:
                self._bars.remove(heard)
                self.moved()

    def moved(self) -> None:
        """That something goes on."""
        self._moved, self._barked = time.monotonic(), False

    def look(self) -> None:
        """Bark if nothing has moved for long enough, and it has not been said."""
        if self._barked or time.monotonic() - self._moved < self._patience:
            return
        self._barked = True
        try:
            awaited = self.awaited()
        except Exception:  # noqa: BLE001 - a look at what is broken: whoever needs it will say so
            awaited = ""
        bars = [bar for bar in self._bars if not bar.full] or self._bars
        awaited = awaited or ", ".join(map(str, bars)) or "Ray"
        minutes = self._patience / 60
        self._progress.say(f"[yellow]nothing has moved for {minutes:g} min[/]: waiting for {awaited}")

    def _watch(self) -> None:
        while not self._over.wait(self._tick):
            self.look()


class _Heard(Bar):
    """A bar that the dog hears moving."""

    def __init__(self, bar: Bar, dog: Watchdog, title: str, total: float, unit: str) -> None:
        self._bar, self._dog, self._title, self._total, self._unit = bar, dog, title, total, unit
        self._done = 0.0

    @property
    def full(self) -> bool:
        return self._done >= self._total

    def set(self, done: float) -> None:
        if done != self._done:
            self._done = done
            self._dog.moved()
        self._bar.set(done)

    def advance(self, by: float = 1) -> None:
        self.set(self._done + by)

    def __str__(self) -> str:
        return f"{self._title} ({self._done:g}/{self._total:g} {self._unit})".replace(" )", ")")


def awaited(work: Work, free: Callable[[], Mapping[str, float]]) -> str:
    """What a run waits for whose points have not begun: its release, or room for them; nothing where one trains.

    `free` are the resources that nobody has, by Ray's names.
    """
    states = [training_status(point.train, work.store).state for point in work.plan.points]
    if "waiting" not in states or "running" in states:
        return ""
    if work.control.is_held(work.locks.owner):
        return "`kdray release`: the run is held"
    kind, count = ("GPU" if work.resources.gpus else "CPU"), work.resources.workers
    return f"{count} {kind}{'s' * (count > 1)}, of which {free().get(kind, 0):g} are free; see `ray status`"
