"""The command line: `kdray --help`."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from kdray import __version__
from kdray.cli_lens import lens
from kdray.spec import Grid, InputError, load_grid

if TYPE_CHECKING:
    from kdray.plan import Plan
    from kdray.store import Outer, Store

STATES = {"done": "green", "running": "cyan", "missing": "yellow", "unresolved": "magenta"}
FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130
WRONG_USAGE: Any = typer.BadParameter.__mro__[2]  # ClickException: click's, or that of typer's own copy of click
EPILOG = "Exit codes: 0 done, 1 something failed or is missing, 2 the input is wrong, 130 interrupted."
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Does distilling a language model from a teacher make it hallucinate less, and at which weight?\n\n"
    "Write a grid file (see grids/quickstart.yaml), then `kdray run` it. Interrupted? Run it again.",
    epilog=EPILOG,
)
app.add_typer(lens, name="lens")
out = Console(width=None if sys.stdout.isatty() else 140)
err = Console(stderr=True)
GridFile = Annotated[Path, typer.Argument(metavar="GRID", help="the grid file, for example grids/quickstart.yaml")]
Insecure = Annotated[bool, typer.Option("--insecure-cluster", help="allow a cluster of several hosts that asks for no token")]
Json = Annotated[bool, typer.Option("--json", help="machine-readable output")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"kdray {__version__}")
        raise typer.Exit


@app.callback()
def kdray(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and end")] = False,
) -> None:
    """What all commands share."""


@app.command()
def check(
    grid: GridFile,
    offline: Annotated[bool, typer.Option("--offline", help="do not ask the hub whether its ids exist")] = False,
) -> None:
    """Check a grid file and everything it names, before any work: exit 0 if it can run, 2 if not."""
    from kdray.check.checks import check_grid
    from kdray.check.machine import SUBMITTED
    from kdray.data.look import look_into

    spec, _, outer = _open(grid)
    notes = check_grid(spec, outer, offline=offline, elsewhere=SUBMITTED in os.environ, look=look_into)
    for note in notes:
        out.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True)
    from kdray.spec.points import expand

    out.print(f"{grid}: fine, {len(expand(spec))} points", highlight=False)


@app.command()
def plan(grid: GridFile, as_json: Json = False) -> None:
    """Show every step that a grid needs, with its id and state, and the size of soft labels. Touches neither network nor store."""
    from kdray.plan.listing import listed_plan
    from kdray.plan.sizes import size_of_labels, training_rows

    made, store = _plan(grid)
    if as_json:
        print(json.dumps(listed_plan(made, store), indent=1))
        return

    rows = [("step", "name", "id", "state", "size")]
    for step in made.steps():
        size = size_of_labels(step, store)
        rows.append((step.kind, step.slug, step.id or "", step.state(store), str(size or "")))
    _print_columns(rows, STATES)
    if made.points:
        print(_epochs(made, training_rows(made, store)))


def _epochs(plan: Plan, rows: int | None) -> str:
    """One line on how long an epoch is."""
    if rows is None:
        return "steps an epoch: known once the data are prepared"
    steps = ", ".join(f"{rows / batch:g} at batch {batch}" for batch in sorted({point.point.batch for point in plan.points}))
    return f"steps an epoch of {rows:,} rows: {steps}"


@app.command()
def run(grid: GridFile, insecure_cluster: Insecure = False) -> None:
    """Do all that is missing of a grid: train, score, report. The same command goes on after any interruption."""
    from kdray.check.checks import check_grid
    from kdray.data.look import look_into
    from kdray.run import resolve

    spec, store, outer = _open(grid)
    check_grid(spec, outer, offline=False, look=look_into)
    _do(resolve(spec, outer), store, outer, insecure_cluster)


@app.command()
def score(
    model: Annotated[list[str], typer.Option(metavar="REF", help="a model to score, as hf:org/name or file:path; may be given again")],
    tasks: Annotated[str, typer.Option(help="'xsum, {name: arc_easy, source: \"file:arc.jsonl\"}', as in a grid file")],
    metrics: Annotated[str, typer.Option(help="of answers, beside each task's own: 'hhem, chrf'")] = "",
    decoding: Annotated[str, typer.Option(help="'greedy, dola', as in a grid file")] = "greedy",
    lens: Annotated[
        str | None, typer.Option(metavar="REF", help="a lens that fits the models, for factual rates: file:FOLDER, or published")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only so many examples of each task")] = None,
    template: Annotated[str, typer.Option(help="of the prompts: alpaca, or '{name: chat, arguments: {enable_thinking: false}}'")] = "chat",
    batch: Annotated[int, typer.Option(min=1)] = 8,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16")] = "float32",
    store: Annotated[str, typer.Option(help="where scores are kept; every node must see it")] = "runs/scores",
    mlflow: Annotated[str | None, typer.Option(help="tracking URI; by default a file in the store")] = None,
    insecure_cluster: Insecure = False,
) -> None:
    """Score models that kdray did not train: the same records, table and MLflow runs as for those of a grid."""
    from kdray.check.checks import check_scoring
    from kdray.data.look import look_into
    from kdray.plan import make_scoring_plan
    from kdray.run import resolved
    from kdray.spec.grid import Grid, Runtime
    from kdray.spec.load import parse_scoring
    from kdray.spec.paths import local_path, tracking_address
    from kdray.spec.refs import names_of
    from kdray.store import Outer, Store

    with _named_as_options():
        models = names_of(model, "--model")
        scoring = parse_scoring(tasks, metrics, decoding, lens, limit, template, batch=batch, dtype=dtype)
        folder = os.path.abspath(local_path(store, "--store", seen_by_all=True))
        uri = None if mlflow is None else tracking_address(mlflow, "--mlflow")
        runtime = Runtime.model_validate({"store": folder, "mlflow": uri})
        spec, opened = Grid.only_scoring(Path(folder).name, *scoring, runtime), Store(folder)
        outer = Outer(opened.root)
        check_scoring(spec, models, outer, look=look_into)
        _do(resolved(lambda: make_scoring_plan(spec, models, outer), outer), opened, outer, insecure_cluster)


@contextlib.contextmanager
def _named_as_options() -> Iterator[None]:
    """What is wrong with a field of a grid is said of the option that it stands for."""
    try:
        yield
    except InputError as error:
        section, _, field = error.field.partition(".")
        if section in ("score", "runtime"):
            raise InputError(f"--{field}", error.found, error.allowed) from None
        if error.field.startswith("data.template"):
            raise InputError(error.field.replace("data.template", "--template"), error.found, error.allowed) from None
        raise InputError("--lens" if section == "lens" else error.field, error.found, error.allowed) from None


@app.command()
def submit(
    grid: GridFile,
    folder: Annotated[str | None, typer.Option(help="the folder on the cluster to run in; by default the path of this one")] = None,
    insecure_cluster: Insecure = False,
) -> None:
    """Run a grid as a job of the cluster behind RAY_API_SERVER_ADDRESS, and show its output. A second call follows the first job."""
    from kdray.orchestration.submit import submit as submit_grid
    from kdray.spec.paths import local_path

    if folder is not None and not Path(local_path(folder, "--folder")).is_absolute():  # it would be one that goes with the job
        raise InputError("--folder", f"'{folder}' is relative", "give the whole path of a folder that all nodes see")
    options = ["--insecure-cluster"] if insecure_cluster else []
    if not submit_grid(grid, load_grid(grid).name, folder or str(Path.cwd()), options, lambda text: print(text, end="", flush=True)):
        raise typer.Exit(FAILED)


@app.command()
def status(grid: GridFile, as_json: Json = False) -> None:
    """Show how far a grid is: steps by state, and every point."""
    from rich.table import Table

    from kdray.plan.listing import listed_status

    listed = listed_status(*_plan(grid))
    if as_json:
        print(json.dumps(listed, indent=1))
        return
    table = Table("step", "done", "running", "missing", "unresolved", box=None)
    for kind, by_state in listed["steps"].items():
        table.add_row(kind, *(str(by_state.get(state, "")) for state in ("done", "running", "missing", "unresolved")))
    out.print(table)


@app.command()
def report(grid: GridFile) -> None:
    """Write the report of what is measured so far, and print its table."""
    made, store = _plan(grid)
    _print_report(made, store)


@app.command()
def track(
    grid: GridFile, serve: Annotated[bool, typer.Option("--serve", help="then serve the MLflow UI on 127.0.0.1:5000")] = False
) -> None:
    """Rebuild the MLflow view of a grid from the store. Running it twice changes nothing."""
    from kdray.check.checks import check_tracking
    from kdray.track.connection import TrackingError
    from kdray.track.mirror import Mirror

    made, store = _plan(grid)
    check_tracking(made.grid.runtime.mlflow, served=serve)
    mirror = Mirror(made, store)
    try:
        mirror.update()
        mirror.finish()
    except TrackingError as error:
        _print_unwritten(str(error), "make it reachable, or correct runtime.mlflow")
        raise typer.Exit(FAILED) from None
    _print_mlflow(made, store)
    if serve:
        from kdray.track.address import serve_command

        command = shlex.split(serve_command(made.grid, store))
        if command[0] != "mlflow":
            raise InputError("runtime.mlflow", f"{command[0]} is a server already", "open it in a browser")
        os.execv(sys.executable, [sys.executable, "-m", *command])


@app.command()
def gc(
    grids: Annotated[list[Path], typer.Argument(metavar="GRID...", help="all grids whose artifacts are to be kept")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be removed")] = False,
) -> None:
    """Remove from the grids' stores what none of the given grids reaches."""
    from kdray.plan.gc import find_garbage
    from kdray.store import io

    by_store: dict[Path, list[Plan]] = {}
    stores: dict[Path, Store] = {}
    for grid in grids:
        made, store = _plan(grid)
        by_store.setdefault(store.root, []).append(made)
        stores[store.root] = store
    found = {root: find_garbage(plans, stores[root]) for root, plans in by_store.items()}  # of all, before any is removed
    for root, garbage in found.items():
        for item in garbage:
            out.print(f"{'would remove' if dry_run else 'removed'} {item.path} ({item.bytes / 1e6:,.1f} MB)", soft_wrap=True)
            if not dry_run:
                io.delete(item.path)
        total = sum(item.bytes for item in garbage) / 1e6
        out.print(f"{root}: {len(garbage)} folders, {total:,.1f} MB", highlight=False, soft_wrap=True)


@app.command()
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="the table of all fields instead, as in docs/grid.md")] = False,
) -> None:
    """Print the JSON schema of grid files, by which editors complete and check them."""
    from kdray.spec.schema import grid_schema
    from kdray.spec.table import grid_table

    print(grid_table() if markdown else json.dumps(grid_schema(), indent=1, ensure_ascii=False))


@app.command()
def why(
    what: Annotated[str, typer.Argument(metavar="GRID|A", help="a grid file, or an artifact's id")],
    other: Annotated[str | None, typer.Argument(metavar="POINT|B", help="a point of the grid, or another artifact's id")] = None,
    store: Annotated[str | None, typer.Option(help="of two ids: the store; by default the one below runs/ that knows both")] = None,
) -> None:
    """Say why steps of a grid, or of one of its points, will be made again; or in which fields two artifacts differ."""
    from kdray.plan.again import explained
    from kdray.plan.why import compared
    from kdray.spec.paths import local_path
    from kdray.store.ids import is_id

    of_ids = store is not None or (is_id(what) and not Path(what).exists())
    below = Path(local_path(store, "--store")) if store is not None else Path("runs")
    lines = compared(below, what, other) if of_ids else explained(*_plan(Path(what)), other)
    for line in lines:
        out.print(line, highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Entry point: turns wrong input into one line and exit code 2, an interruption into 130."""
    try:
        code = app(prog_name="kdray", standalone_mode=False)  # typer returns the code of a typer.Exit, and 130 for an interruption
    except InputError as error:
        err.print(f"[red]error[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(WRONG_INPUT)
    except WRONG_USAGE as error:
        error.show()
        sys.exit(WRONG_INPUT)
    except OSError as error:
        if error.filename is None:
            raise
        reason = f"{error.filename}: {error.strerror or error}; give a path that can be used"
        err.print(f"[red]error[/] {escape(reason)}", soft_wrap=True, highlight=False)
        sys.exit(WRONG_INPUT)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        err.print("interrupted: nothing finished is lost, the same command goes on")
    if code:
        sys.exit(code)


def _do(made: Plan, store: Store, outer: Outer, insecure: bool) -> None:
    """Do what is missing of a plan, and show what came out."""
    from kdray.orchestration.progress import Progress
    from kdray.run import run as run_plan
    from kdray.track.follow import Follower
    from kdray.track.mirror import Mirror

    name, every = made.grid.name, list(made.steps())
    missing = [step for step in every if step.state(store) != "done"]
    failed: dict[str, str] = {}
    if missing:
        out.print(f"{name}: {len(missing)} of {len(every)} steps to do", highlight=False)
        view = Follower(Mirror(made, store), lambda reason: _print_unwritten(reason, "`kdray track` rebuilds it later"))
        with Progress(out) as progress:
            failed = run_plan(made, store, outer, progress, view, insecure=insecure)
        view.finish()
    else:
        out.print(f"{name}: all {len(every)} steps are done", highlight=False)
    _print_report(made, store)
    _print_mlflow(made, store)
    if failed or any(step.state(store) != "done" for step in every):
        err.print(f"[red]incomplete:[/] {len(failed)} steps failed; the same command tries them again")
        raise typer.Exit(FAILED)


def _open(path: Path) -> tuple[Grid, Store, Outer]:
    from kdray.store import Outer, Store

    spec = load_grid(path)
    store = Store(spec.runtime.store)
    return spec, store, Outer(store.root)


def _plan(path: Path) -> tuple[Plan, Store]:
    from kdray.plan import make_plan

    spec, store, outer = _open(path)
    return make_plan(spec, outer), store


def _print_report(made: Plan, store: Store) -> None:
    from kdray.report.results import collect
    from kdray.report.write import print_table, write_report

    results = collect(made, store)
    print_table(results, out)
    if store.root.is_dir():
        folder = write_report(results, store.root / "report" / made.grid.name)
        out.print(f"report  {os.path.relpath(folder)}/report.md", highlight=False, soft_wrap=True)


def _print_mlflow(made: Plan, store: Store) -> None:
    from kdray.track.address import serve_command, view_link

    out.print(f"MLflow  {serve_command(made.grid, store)}", highlight=False, soft_wrap=True)
    if link := view_link(made.grid, store):
        out.print(f"        then open {link}", highlight=False, soft_wrap=True)


def _print_unwritten(reason: str, advice: str) -> None:
    err.print(f"[yellow]MLflow cannot be written[/] ({escape(reason.splitlines()[0])}); {advice}", soft_wrap=True, highlight=False)


def _print_columns(rows: Sequence[Sequence[str]], colours: Mapping[str, str]) -> None:
    """Rows below their header, cells that are one of `colours` in it. rich's own table takes a millisecond a row, of 100,000."""
    with out.capture() as captured:
        for name, colour in colours.items():
            out.print(name, style=colour)
    coloured = dict(zip(colours, captured.get().splitlines(), strict=True))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(coloured.get(cell, cell) + " " * (width - len(cell)) for cell, width in zip(row, widths, strict=True)) for row in rows
    ]
    out.print(f" {lines[0]} ", style="bold", highlight=False, soft_wrap=True)
    for line in lines[1:]:
        print(f" {line} ")
