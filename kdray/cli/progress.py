"""How a run is seen on the terminal: one bar a stage, or a line now and then where there is no terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from kdray.orchestration.progress import Bar, Progress

LINE_EVERY = 15.0  # seconds between lines where there is no terminal


class Terminal(Progress):
    """Bars and messages of one run. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Bars(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Terminal:
        self._bars.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.__exit__(kind, value, trace)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)  # a path is not cut in two

    def bar(self, title: str, total: float, unit: str = "") -> TerminalBar:
        return TerminalBar(self, self._bars, title, total, unit)


class TerminalBar(Bar):
    """One stage's progress. Finished when the block ends without an error; not shown where there is nothing to do."""

    def __init__(self, progress: Terminal, bars: Bars, title: str, total: float, unit: str) -> None:
        self._progress, self._bars, self.title, self.total, self.unit = progress, bars, title, total, unit
        self._task = bars.add_task(f"{title:<9}", total=total, unit=unit, visible=total > 0)
        self._done = 0.0
        self._began = self._said = time.monotonic()

    def __enter__(self) -> TerminalBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop_task(self._task)
        if kind is None and self.total and self._bars.disable:
            self._progress.say(f"{self.title}: done in {time.monotonic() - self._began:.0f} s")

    def set(self, done: float) -> None:
        self._done = done
        self._bars.update(self._task, completed=done)
        if self._bars.disable and time.monotonic() - self._said > LINE_EVERY:
            self._said = time.monotonic()
            self._progress.say(f"{self.title}: {done:g}/{self.total:g} {self.unit}".rstrip())

    def advance(self, by: float = 1) -> None:
        self.set(self._done + by)
