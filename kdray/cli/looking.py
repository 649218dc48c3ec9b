"""Looking at a grid without doing any of its work: is it right, what does it need, how far is it, and why."""

from __future__ import annotations

import json
import os
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from kdray.cli.shared import (
    GridFile,
    Json,
    finite,
    open_grid,
    out,
    plans_of,
    print_json,
    print_report,
    print_reports,
    say,
    wanted_of,
)
from kdray.spec import InputError

if TYPE_CHECKING:
    from kdray.cost.shown import Price
    from kdray.plan import Plan
    from kdray.store import Store

WORKER = "kdray.orchestration.worker"  # the module that a process of a run imports
STATES = {"done": "green", "running": "cyan", "missing": "yellow", "unresolved": "magenta"}


def check(
    grid: GridFile,
    offline: Annotated[bool, typer.Option("--offline", help="do not ask the hub whether its ids exist")] = False,
) -> None:
    """Check a grid file and everything it names, before any work: exit 0 if it can run, 2 if not."""
    from kdray.check.checks import check_grid
    from kdray.check.machine import SUBMITTED
    from kdray.data.look import look_into
    from kdray.data.sample import sampled_notes
    from kdray.plan import make_plan
    from kdray.plan.prepared import prepared_notes

    spec, store, outer = open_grid(grid)
    notes = check_grid(spec, outer, offline=offline, elsewhere=SUBMITTED in os.environ, look=look_into)
    notes += prepared_notes(make_plan(spec, outer), store) or sampled_notes(spec, outer)
    for note in notes:
        out.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True)
    from kdray.spec.points import expand

    say(f"{grid}: fine, {len(expand(spec))} points")


def plan(
    grid: GridFile,
    card: Annotated[
        str | None,
        typer.Option(
            help="price what is left on this GPU: H100, H200, A100 or RTX4090; CPU: on cores like this machine's"
        ),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="how many there are; by default those of one point, of cores all")
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, callback=finite, help="what one of them costs an hour, in USD")
    ] = None,
    rows: Annotated[int | None, typer.Option(min=1, help="rows to train on, before the data are prepared")] = None,
    as_json: Json = False,
) -> None:
    """Show every step that a grid needs, with its id and state, and on GPUs what is left of it costs.

    Touches neither network nor store.
    """
    from kdray.check.kinds import check_kinds
    from kdray.check.machine import idle_workers
    from kdray.cost.models import folders_of
    from kdray.cost.shown import lines, listed
    from kdray.plan.listing import listed_plan
    from kdray.plan.prepared import prepared_notes
    from kdray.plan.sizes import size_of_labels, training_rows
    from kdray.store import Outer

    made, store = wanted_of(grid)
    kinds = check_kinds(made.grid, folders_of(made, store, Outer(store.root)), by_role=True)
    wanted = any(value is not None for value in (card, gpus, price, rows)) or made.grid.runtime.device == "gpu"
    cost = _cost(made, store, card, gpus, rows, price) if wanted or as_json else []
    if as_json:
        priced = {"unknown": cost} if isinstance(cost, list) else listed(cost)
        print_json(listed_plan(made, store) | {"cost": priced}, indent=1)
        return

    lines_of = [("step", "name", "id", "state", "size")]
    for step in made.steps():
        size = size_of_labels(step, store)
        lines_of.append((step.kind, step.slug, step.id or "", step.state(store), str(size or "")))
    _print_columns(lines_of, STATES)
    if made.points:
        print(_epochs(made, training_rows(made, store)))
    for note in prepared_notes(made, store):
        out.print(f"[yellow]data[/]: {note}", highlight=False, soft_wrap=True)
    for note in [*kinds, *idle_workers(made.grid)]:
        out.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True, highlight=False)
    for line in [f"no price: {reason}" for reason in cost] if isinstance(cost, list) else lines(cost):
        print(line)


def why(
    what: Annotated[str, typer.Argument(metavar="GRID|A", help="a grid file, or an artifact's id")],
    other: Annotated[
        str | None, typer.Argument(metavar="POINT|B", help="a point of the grid, or another artifact's id")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="of two ids: the store; by default the one below runs/ that knows both")
    ] = None,
) -> None:
    """Say why steps of a grid, or of one of its points, will be made again; or in which fields two artifacts differ."""
    from kdray.plan.again import explained
    from kdray.plan.why import compared
    from kdray.spec.paths import local_path
    from kdray.store.ids import is_id

    of_ids = store is not None or (is_id(what) and not Path(what).exists())
    below = Path(local_path(store, "--store")) if store is not None else Path("runs")
    lines = compared(below, what, other) if of_ids else explained(*wanted_of(Path(what)), other)
    for line in lines:
        say(line)


def report(
    grids: Annotated[
        list[Path],
        typer.Argument(metavar="GRID...", help="grid files; of several there is one page that has all of them"),
    ],
    open_page: Annotated[bool, typer.Option("--open", help="then open it in a browser")] = False,
) -> None:
    """Write the report of what is measured so far, and print its table."""
    made = plans_of(grids)
    page = print_report(*made[0]) if len(made) == 1 else print_reports(made)
    if open_page and page is None:
        raise InputError("runtime.store", f"no folder {made[0][1].root}", "run the grid first")
    if open_page and page:
        webbrowser.open(page.as_uri())


def schema(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="the table of all fields instead, as in docs/grid.md")
    ] = False,
) -> None:
    """Print the JSON schema of grid files, by which editors complete and check them."""
    from kdray.spec.schema import grid_schema
    from kdray.spec.table import grid_table

    print(grid_table() if markdown else json.dumps(grid_schema(), indent=1, ensure_ascii=False))


def _cost(
    plan: Plan, store: Store, card: str | None, gpus: int | None, rows: int | None, per_hour: float | None
) -> Price | list[str]:
    """The price of what is left of a grid, by default on its own accelerator; or why there is none."""
    from kdray.cost.cards import CARDS, CORE, card_of
    from kdray.cost.shown import priced
    from kdray.store import Outer

    runtime = plan.grid.runtime
    asked = card or (runtime.accelerator if runtime.accelerator in CARDS else "H100")
    if asked.upper() == CORE:
        from kdray.models.core import measured

        on = measured(WORKER)
    else:
        on = card_of(asked, also=[CORE])
    workers = 1 if runtime.workers == "auto" else runtime.workers
    usual = workers if on.unit == "GPU" else len(os.sched_getaffinity(0))
    return priced(plan, store, Outer(store.root), on, gpus or usual, rows, per_hour)


def _epochs(plan: Plan, rows: int | None) -> str:
    """One line on how long an epoch is."""
    if rows is None:
        return "steps an epoch: known once the data are prepared"
    steps = ", ".join(
        f"{rows / batch:g} at batch {batch}" for batch in sorted({point.point.batch for point in plan.points})
    )
    return f"steps an epoch of {rows:,} rows: {steps}"


def _print_columns(rows: Sequence[Sequence[str]], colours: Mapping[str, str]) -> None:
    """Rows below their header, cells that are one of `colours` in it. rich's own table takes a millisecond a row, of
    100,000.
    """
    with out.capture() as captured:
        for name, colour in colours.items():
            out.print(name, style=colour)
    coloured = dict(zip(colours, captured.get().splitlines(), strict=True))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(coloured.get(cell, cell) + " " * (width - len(cell)) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    out.print(f" {lines[0]} ", style="bold", highlight=False, soft_wrap=True)
    for line in lines[1:]:
        print(f" {line} ")
