"""What a point has logged, as lines: read in the store, on any machine that sees it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdray.cli.control import NAMED
from kdray.cli.shared import GridFile, plan_of, say

if TYPE_CHECKING:
    from kdray.plan import Step
    from kdray.plan.inputs import TrainInputs
    from kdray.plan.progress import TrainingStatus
    from kdray.store import Store

EVERY = 1.0  # seconds between looks at a growing log
GOING = ("running", "stopping", "waiting")


def logs(
    grid: GridFile,
    point: Annotated[str, typer.Argument(metavar="POINT", help=f"the point, by {NAMED}")],
    follow: Annotated[bool, typer.Option("--follow", help="print what comes, until the point ends or Ctrl-C")] = False,
) -> None:
    """Print what the newest attempt at a point has logged, a line a step, and why it ended if it did.

    `tokens` are those of the step's responses. Seconds are those of the step with what it exported; steps that an
    earlier attempt took have none.
    """
    from kdray.plan.progress import find_points

    plan, store = plan_of(grid)
    [found] = find_points(plan, [point])
    log = _Log(found.train, store, grid)
    try:
        while log.print_new() in GOING and follow:
            time.sleep(EVERY)
    except KeyboardInterrupt:
        if not follow:
            raise
        return  # how one leaves it: nothing was interrupted
    say(log.end())


class _Log:
    """The log of a training step, printed as it grows."""

    def __init__(self, step: Step[TrainInputs], store: Store, grid: Path) -> None:
        self._step, self._store, self._grid = step, store, grid
        self._attempt: Path | None = None  # whose steps were printed
        self._printed = 0

    def print_new(self) -> str:
        """Print the steps that are new, and return the point's state."""
        from kdray.artifacts.curve import read_attempt, read_times
        from kdray.plan.progress import begun_attempt

        status = self._status()
        attempt = begun_attempt(self._step, self._store)
        if attempt is None:
            return status.state
        if attempt != self._attempt:
            self._attempt, self._printed = attempt, 0
            say(_heading(attempt.name, status))
        curve, times = read_attempt(attempt), read_times(attempt)
        for entry in curve[self._printed :]:
            say(_line(entry, status.total, times.get(int(entry["step"]))))
        self._printed = len(curve)
        return status.state

    def end(self) -> str:
        """How the point stands, behind its steps."""
        status = self._status()
        if status.state == "done":
            made = self._store.get(self._step.key)
            return f"done in {made.facts['seconds']:.0f} s" if made else "done"
        says = {
            "running": "running",
            "stopping": "to stop after its step",
            "waiting": "waits for its turn",
            "missing": f"no run is at work on it: `kdray run {self._grid}` goes on with it",
            "stopped": f"`kdray release {self._grid} {status.slug}` lets it go on",
            "stopped early": f"without `search` in {self._grid}, `kdray run` trains it to its end",
        }
        return ": ".join(filter(None, (status.why, says.get(status.state))))

    def _status(self) -> TrainingStatus:
        from kdray.plan.progress import training_status

        return training_status(self._step, self._store)


def _heading(attempt: str, status: TrainingStatus) -> str:
    where = ", ".join(filter(None, (status.node, status.device)))
    return f"{status.slug} {attempt}" + (f" on {where}" if where else "")


def _line(entry: Mapping[str, float], total: int | None, seconds: float | None) -> str:
    """A step as a line."""
    step = f"{entry['step']:.0f}" if total is None else f"{entry['step']:.0f}/{total}"
    parts = [f"step {step}", f"loss {entry['loss']:.4f}"]
    if "lr" in entry:
        parts.append(f"lr {entry['lr']:.3g}")
    parts.append(f"tokens {entry['tokens']:.0f}")
    if seconds is not None:
        parts.append(f"{seconds:.2f} s")
    if "heldout_ce" in entry:
        parts.append(f"held-out loss {entry['heldout_ce']:.4f}")
    return "  ".join(parts)
