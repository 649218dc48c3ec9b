"""What is in a store: shown by MLflow, or removed where no grid needs it."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kdray.cli.shared import FAILED, GridFile, plan_of, plans_of, print_mlflow, print_unwritten, say
from kdray.spec import InputError

if TYPE_CHECKING:
    from kdray.plan import Plan
    from kdray.store import Store


def track(
    grid: GridFile,
    serve: Annotated[bool, typer.Option("--serve", help="then serve the MLflow UI on 127.0.0.1:5000")] = False,
) -> None:
    """Rebuild the MLflow view of a grid from the store. Running it twice changes nothing."""
    from kdray.check.tracking import check_tracking
    from kdray.track.connection import TrackingError
    from kdray.track.mirror import Mirror

    made, store = plan_of(grid)
    check_tracking(made.grid.runtime.mlflow, served=serve)
    mirror = Mirror(made, store)
    try:
        mirror.update()
        mirror.finish()
    except TrackingError as error:
        print_unwritten(str(error), "make it reachable, or correct runtime.mlflow")
        raise typer.Exit(FAILED) from None
    print_mlflow(made, store)
    if serve:
        from kdray.track.address import SERVER, serve_command

        command = shlex.split(serve_command(made.grid, store))
        if command[0] != "mlflow":
            raise InputError("runtime.mlflow", f"{command[0]} is a server already", "open it in a browser")
        os.execve(sys.executable, [sys.executable, "-m", *command], SERVER | os.environ)


def gc(
    grids: Annotated[list[Path], typer.Argument(metavar="GRID...", help="all grids whose artifacts are to be kept")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be removed")] = False,
) -> None:
    """Remove from the grids' stores what none of the given grids reaches."""
    from kdray.plan.gc import Garbage, find_garbage
    from kdray.store import io

    by_store: dict[Path, list[Plan]] = {}
    stores: dict[Path, Store] = {}
    for made, store, _ in plans_of(grids):
        by_store.setdefault(store.root, []).append(made)
        stores[store.root] = store
    found = {
        root: find_garbage(plans, stores[root]) for root, plans in by_store.items()
    }  # of all, before any is removed
    left: list[Garbage] = []
    for root, garbage in found.items():
        for item in garbage:
            if not dry_run:
                io.delete(item.path)
            if not dry_run and item.path.exists():  # another user's
                left.append(item)
            said = "could not remove" if item in left else "would remove" if dry_run else "removed"
            say(f"{said} {item.path} ({item.bytes / 1e6:,.1f} MB)")
        gone = [item for item in garbage if item not in left]
        say(f"{root}: {len(gone)} folders, {sum(item.bytes for item in gone) / 1e6:,.1f} MB")
    if left:
        raise typer.Exit(FAILED)
