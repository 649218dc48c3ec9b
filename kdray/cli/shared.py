"""What commands share: their options and exit codes, the consoles, a grid's plan, and what is printed after a run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from kdray.spec import Grid, load_grid

if TYPE_CHECKING:
    from kdray.plan import Plan
    from kdray.store import Outer, Store

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130
GridFile = Annotated[Path, typer.Argument(metavar="GRID", help="the grid file, for example grids/quickstart.yaml")]
Insecure = Annotated[bool, typer.Option("--insecure-cluster", help="allow a cluster of several hosts that asks for no token")]
Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]
out = Console(width=None if sys.stdout.isatty() else 140)
err = Console(stderr=True)


def open_grid(path: Path) -> tuple[Grid, Store, Outer]:
    """The grid in a file, the store that it names, and what comes from outside as that store knows it."""
    from kdray.store import Outer, Store

    spec = load_grid(path)
    store = Store(spec.runtime.store)
    return spec, store, Outer(store.root)


def plan_of(path: Path) -> tuple[Plan, Store]:
    """What the grid in a file needs, and its store."""
    from kdray.plan import make_plan

    spec, store, outer = open_grid(path)
    return make_plan(spec, outer), store


def print_report(made: Plan, store: Store) -> None:
    """Print the table of what is measured so far, and write the report into the store if there is one."""
    from kdray.report.results import collect
    from kdray.report.write import print_table, write_report

    results = collect(made, store)
    print_table(results, out)
    if store.root.is_dir():
        folder = write_report(results, store.root / "report" / made.grid.name)
        out.print(f"report  {os.path.relpath(folder)}/report.md", highlight=False, soft_wrap=True)


def print_mlflow(made: Plan, store: Store) -> None:
    """Say how the grid's runs are to be seen."""
    from kdray.track.address import serve_command, view_link

    out.print(f"MLflow  {serve_command(made.grid, store)}", highlight=False, soft_wrap=True)
    if link := view_link(made.grid, store):
        out.print(f"        then open {link}", highlight=False, soft_wrap=True)


def print_unwritten(reason: str, advice: str) -> None:
    """Say that the view of the runs is behind, which holds nothing up."""
    err.print(f"[yellow]MLflow cannot be written[/] ({escape(reason.splitlines()[0])}); {advice}", soft_wrap=True, highlight=False)
