"""Bars of running training jobs, from the curves that their first workers append to, and what is asked of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.markup import escape

from kdray.artifacts.curve import count_steps, curve_file
from kdray.artifacts.notes import read_start, stopped_at
from kdray.artifacts.rows import Rows
from kdray.orchestration.job import Job
from kdray.orchestration.work import Work
from kdray.train.order import Order
from kdray.train.settings import Settings

TICK = 2.0  # seconds between looks


@contextlib.contextmanager
def watch(title: str, jobs: list[Job], work: Work) -> Iterator[None]:
    """Show the jobs' steps, and mirror their curves, from a thread that reads what rank 0 appends."""
    total = sum(map(job_steps, jobs))
    stop, steps = threading.Event(), Counted()
    with work.progress.bar(title, total, "steps") as bar:
        told = Told(jobs, work)

        def look() -> None:
            said: set[str] = set()
            while not stop.wait(TICK):
                try:
                    bar.set(sum(steps(job.attempt.path) for job in jobs))
                    told.tell()
                    work.after()
                except Exception as error:  # noqa: BLE001 - it trains on, whether that is shown or not
                    if repr(error) not in said:  # a file system that was away for a while comes back
                        said.add(repr(error))
                        reason = work.keep_error(title, error)
                        work.progress.say(f"[yellow]steps could not be shown[/], all else goes on: {escape(reason)}")

        thread = threading.Thread(target=look, name="kdray-watch", daemon=True)
        thread.start()
        try:
            yield
            bar.set(sum(steps(job.attempt.path) for job in jobs))
        finally:
            stop.set()
            thread.join()
            told.tell()


class Counted:
    """How many steps an attempt has written. Its file is read again only once it has changed: of thousands of points
    few train at a time, and all others are looked at as often.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int], int]] = {}  # by attempt: the file's size and time, and its steps

    def __call__(self, attempt: Path) -> int:
        try:
            status = curve_file(attempt).stat()
        except FileNotFoundError:
            return 0
        stamp, known = (status.st_size, status.st_mtime_ns), self._known.get(attempt)
        if known is None or known[0] != stamp:
            self._known[attempt] = known = stamp, count_steps(attempt)
        return known[1]


class Told:
    """Says once of every job that it was stopped, and when the run is held or goes on; and once of all of them why
    rows are padded that were to be packed.
    """

    def __init__(self, jobs: list[Job], work: Work) -> None:
        self._jobs, self._work, self._held = list(jobs), work, False
        self._waiting, self._padded = list(jobs), set[str]()

    def tell(self) -> None:
        say, grid = self._work.progress.say, self._work.plan.grid.name
        for job in list(self._waiting):
            if start := read_start(job.attempt.path):
                self._waiting.remove(job)
                if (why := start.get("padded")) and why not in self._padded:
                    say(f"[yellow]padded[/]: {escape(why)}")
                    self._padded.add(why)
        if self._held != (held := self._work.control.is_held(self._work.locks.owner)):
            say(f"[yellow]held[/] {grid}: no new point begins" if held else f"released {grid}")
            self._held = held
        for job in list(self._jobs):
            if (step := stopped_at(job.attempt.path)) is not None:
                at = f"at step {step}" if step else "before it began"
                why = self._work.control.early(job.attempt.key.id)
                early, behind = (" early", f": {why}") if why else ("", "")
                say(f"[yellow]stopped{early}[/] train {job.attempt.key.slug} {at}{behind}")
                self._jobs.remove(job)


def job_steps(job: Job) -> int:
    """Optimiser steps of the whole job."""
    return step_at(job.settings, lambda: Rows(job.data, job.among), job.settings.length)


def step_at(settings: Settings, rows: Callable[[], Rows], position: float) -> int:
    """The optimiser step at which a position is reached, in the unit of the length; `rows` opens what is trained on."""
    if settings.unit == "steps":
        return int(position)
    return Order(rows().train, settings.batch, settings.seed).steps(position)
