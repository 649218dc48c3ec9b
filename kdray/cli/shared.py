"""What commands share: their options and exit codes, the consoles, a grid's plan, and what is printed after a run."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from kdray.spec import Grid, InputError, load_grid

if TYPE_CHECKING:
    from kdray.plan import Plan
    from kdray.store import Outer, Store

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130
GridFile = Annotated[Path, typer.Argument(metavar="GRID", help="the grid file, for example grids/quickstart.yaml")]
Insecure = Annotated[
    bool, typer.Option("--insecure-cluster", help="allow a cluster of several hosts that asks for no token")
]
Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]
out = Console(width=None if sys.stdout.isatty() else 140)
err = Console(stderr=True)


def finite(value: float | None) -> float | None:
    """What an option is given; nan and inf are floats to typer."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


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


def plans_of(paths: Sequence[Path]) -> list[tuple[Plan, Store, Path]]:
    """As `plan_of` of every file, with the file; what is wrong in one of several is said with its name."""
    made: list[tuple[Plan, Store, Path]] = []
    for path in paths:
        try:
            made.append((*plan_of(path), path))
        except InputError as error:
            if len(paths) == 1:
                raise
            raise InputError(f"{path}: {error.field}", error.found, error.allowed) from None
    return made


def wanted_of(path: Path) -> tuple[Plan, Store]:
    """As `plan_of`, without the scores of checkpoints that were not chosen; the last stands for one that is to be."""
    from kdray.report.chosen import Choices

    made, store = plan_of(path)
    return Choices(made, store).narrowed(), store


def say(text: str) -> None:
    """Print a line as it stands: in what a user has named, such as a path, [v2] is no markup."""
    out.print(text, highlight=False, markup=False, soft_wrap=True)


def print_json(value: Any, indent: int | None = None) -> None:
    """Print JSON, in which what is no finite number is null: NaN would be read by few programs."""
    try:
        text = json.dumps(value, indent=indent, allow_nan=False)
    except ValueError:
        known = json.loads(json.dumps(value), parse_constant=lambda _: None)
        text = json.dumps(known, indent=indent)
    print(text)


def print_report(made: Plan, store: Store, file: Path | None = None) -> Path | None:
    """Print the table of what is measured so far, and write the report into the store if there is one; returns the
    page's path.

    `file` is what the plan was made of, to be named in the report.
    """
    from kdray.report.page.page import write_page
    from kdray.report.results import collect
    from kdray.report.write import print_table, write_report

    results = collect(made, store)
    print_table(results, out)
    if not store.root.is_dir():
        return None
    folder = write_report(results, store.root / "report" / made.grid.name)
    page = write_page([(results, store, file)], folder)
    say(f"report  {os.path.relpath(page)}")
    return page


def print_reports(made: Sequence[tuple[Plan, Store, Path]]) -> Path | None:
    """As `print_report` of several grids: their tables, and one page of all of them, in the first store that is
    there.
    """
    from kdray.plan.steps import LONGEST
    from kdray.report.page.page import write_page
    from kdray.report.results import collect
    from kdray.report.write import print_table
    from kdray.store import fingerprint

    given = [(collect(plan, store), store, file) for plan, store, file in made]
    for results, _, _ in given:
        print_table(results, out)
    roots = [store.root for _, store, _ in given if store.root.is_dir()]
    if not roots:
        return None
    name = "+".join(plan.grid.name for plan, _, _ in made)
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{fingerprint(name)}"
    page = write_page(given, roots[0] / "report" / name)
    say(f"report  {os.path.relpath(page)}")
    return page


def print_mlflow(made: Plan, store: Store) -> None:
    """Say how the grid's runs are to be seen."""
    from kdray.track.address import serve_command, view_link

    say(f"MLflow  {serve_command(made.grid, store)}")
    if link := view_link(made.grid, store):
        say(f"        then open {link}")


def print_unwritten(reason: str, advice: str) -> None:
    """Say that the view of the runs is behind, which holds nothing up."""
    err.print(
        f"[yellow]MLflow cannot be written[/] ({escape(reason.splitlines()[0])}); {advice}",
        soft_wrap=True,
        highlight=False,
    )
