"""Running a grid in the test's own process."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from kdray.cli.progress import Terminal
from kdray.plan import Plan
from kdray.run import resolve, run
from kdray.spec import load_grid
from kdray.store import Outer, Store


def run_here(path: Path) -> tuple[Plan, Store, dict[str, str]]:
    """As `kdray run` does it: the plan, the store, and why steps failed, by id."""
    grid = load_grid(path)
    store = Store(grid.runtime.store)
    outer = Outer(store.root)
    with Terminal(Console(quiet=True)) as progress:
        plan = resolve(grid, outer)
        return plan, store, run(plan, store, outer, progress, lambda: None)
