"""What is asked of runs: small files in the store, which is all that a run and the one who types a command must share.

    <root>/control/run-<owner>       a run at work: its grid, host and process (removed when it ends)
    <root>/control/hold-<owner>      no new point begins in that run (goes with it)
    <root>/control/stop-<id>         a point, by the id of its training: it stops, and no run goes on with it; with why,
                                     where a search asked for it and not a person

A run is alive as long as its driver counts (see `locks`): a file that a killed one left behind says nothing.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kdray.store import io
from kdray.store.locks import DRIVERS, STALE_AFTER, Locks

CONTROL = "control"
RUN, HOLD, STOP = "run-", "hold-", "stop-"


@dataclass(frozen=True)
class Running:
    """A run that has announced itself; `owner` is its driver's name among locks."""

    owner: str
    grid: str
    host: str
    pid: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Control:
    """What is asked of the runs on the store below `root`. Reading creates nothing."""

    def __init__(self, root: Path) -> None:
        self.folder, self._drivers = root / CONTROL, root / DRIVERS

    @contextlib.contextmanager
    def announced(self, grid: str, locks: Locks) -> Iterator[None]:
        """Let others see that a run of `grid` is at work, for the length of the block."""
        locks.be_counted(self._drivers.parent)
        facts = {"grid": grid, "host": platform.node(), "pid": os.getpid()}
        io.put_json(self.folder / f"{RUN}{locks.owner}", facts, durable=False)
        try:
            yield
        finally:
            for prefix in (RUN, HOLD):
                io.delete(self.folder / f"{prefix}{locks.owner}")

    def runs(self, grid: str) -> list[Running]:
        """The runs of a grid that counted in the last seconds, by the files' age. For display only."""
        return [run for run in self._announced(grid) if self._age(run) < STALE_AFTER]

    def hold(self, grid: str, patience: float = STALE_AFTER) -> list[Running]:
        """Ask the runs of a grid to begin no new point; returns those that count on while we look, for `patience`
        seconds at most.
        """
        asked = self._announced(grid)
        before = {run: self._count(run) for run in asked}
        deadline = time.monotonic() + patience
        alive: list[Running] = []
        while asked and not alive and time.monotonic() < deadline:
            time.sleep(0.1)
            alive = [run for run in asked if self._count(run) not in (None, before[run])]
        if alive:
            for run in asked:
                io.put_json(self.folder / f"{HOLD}{run.owner}", {}, durable=False)
        return alive

    def is_held(self, owner: str) -> bool:
        """Whether a run is to begin no new point."""
        return (self.folder / f"{HOLD}{owner}").exists()

    def unhold(self, grid: str) -> bool:
        """Let the runs of a grid begin points again; whether one was held."""
        held = [run for run in self._announced(grid) if self.is_held(run.owner)]
        for run in held:
            io.delete(self.folder / f"{HOLD}{run.owner}")
        return bool(held)

    def stop(self, id: str, early: str = "") -> None:
        """Ask whoever trains a point, now or later, to leave it; `early` is why, where a search asks."""
        io.put_json(self.folder / f"{STOP}{id}", {"host": platform.node(), "pid": os.getpid(), "early": early})

    def is_stopped(self, id: str) -> bool:
        """Whether a point is to be left."""
        return (self.folder / f"{STOP}{id}").exists()

    def early(self, id: str) -> str:
        """Why a search has stopped a point; empty where it did not, or a person asked for it since."""
        facts = io.read_json(self.folder / f"{STOP}{id}")
        return str(facts.get("early", "")) if isinstance(facts, dict) else ""

    def unstop(self, ids: Iterable[str]) -> None:
        """Let points go on."""
        for id in ids:
            io.delete(self.folder / f"{STOP}{id}")

    def _announced(self, grid: str) -> list[Running]:
        """The runs of a grid, alive or not, that have left a whole file."""
        found = []
        for path in sorted(self.folder.glob(f"{RUN}*")):
            facts = io.read_json(path)
            if isinstance(facts, dict) and facts.keys() == {"grid", "host", "pid"} and facts["grid"] == grid:
                found.append(Running(path.name.removeprefix(RUN), **facts))
        return found

    def _count(self, run: Running) -> object:
        return io.read_json(self._drivers / run.owner)

    def _age(self, run: Running) -> float:
        try:
            return abs(time.time() - (self._drivers / run.owner).stat().st_mtime)  # a clock may have been set back
        except FileNotFoundError:
            return float("inf")
