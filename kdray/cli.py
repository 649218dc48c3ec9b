"""The command line: `kdray --help`."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from kdray.cli_lens import lens
from kdray.spec import Grid, InputError, load_grid

if TYPE_CHECKING:
    from kdray.plan import Plan
    from kdray.store import Outer, Store

FAILED, WRONG_INPUT, INTERRUPTED = 1, 2, 130
WRONG_USAGE: Any = typer.BadParameter.__mro__[2]  # ClickException: click's, or that of typer's own copy of click
EPILOG = "Exit codes: 0 done, 1 something failed or is missing, 2 the input is wrong, 130 interrupted."
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
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


@app.command()
def check(
    grid: GridFile,
    offline: Annotated[bool, typer.Option("--offline", help="do not ask the hub whether its ids exist")] = False,
) -> None:
    """Check a grid file and everything it names, before any work: exit 0 if it can run, 2 if not."""
    from kdray.plan.checks import check_grid

    spec, _, outer = _open(grid)
    notes = check_grid(spec, outer, offline=offline)
    for note in notes:
        out.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True)
    from kdray.spec.points import expand

    out.print(f"{grid}: fine, {len(expand(spec))} points", highlight=False)


@app.command()
def plan(grid: GridFile, as_json: Json = False) -> None:
    """Show every step that a grid needs, with its id and state, and the size of soft labels. Touches neither network nor store."""
    from kdray.plan.sizes import size_of_labels

    made, store = _plan(grid)
    if as_json:
        print(json.dumps(_plan_as_json(made, store), indent=1))
        return
    from rich.table import Table

    table = Table("step", "name", "id", "state", "size", box=None)
    for step in made.steps():
        size = size_of_labels(step, store) if step.kind == "soften" else None
        table.add_row(step.kind, step.slug, step.id or "", _coloured(step.state(store)), str(size or ""))
    out.print(table)


@app.command()
def run(grid: GridFile, insecure_cluster: Insecure = False) -> None:
    """Do all that is missing of a grid: train, score, report. The same command goes on after any interruption."""
    from kdray.plan.checks import check_grid
    from kdray.stages.progress import Progress
    from kdray.stages.run import resolve
    from kdray.stages.run import run as run_plan

    spec, store, outer = _open(grid)
    check_grid(spec, outer, offline=False)
    made = resolve(spec, outer)
    missing = [step for step in made.steps() if step.state(store) != "done"]
    failed: dict[str, str] = {}
    if missing:
        out.print(f"{spec.name}: {len(missing)} of {len(list(made.steps()))} steps to do", highlight=False)
        mirror = _Mirror(made, store)
        with Progress(out) as progress:
            failed = run_plan(made, store, outer, progress, mirror, insecure=insecure_cluster)
        mirror.finish()
    else:
        out.print(f"{spec.name}: all {len(list(made.steps()))} steps are done", highlight=False)
    _print_report(made, store)
    _print_mlflow(made, store)
    if failed or any(step.state(store) != "done" for step in made.steps()):
        err.print(f"[red]incomplete:[/] {len(failed)} steps failed; the same command tries them again")
        raise typer.Exit(FAILED)


@app.command()
def submit(
    grid: GridFile,
    folder: Annotated[str | None, typer.Option(help="the folder on the cluster to run in; by default the path of this one")] = None,
    insecure_cluster: Insecure = False,
) -> None:
    """Run a grid as a job of the cluster behind RAY_API_SERVER_ADDRESS, and show its output. A second call follows the first job."""
    from kdray.stages.submit import submit as submit_grid

    options = ["--insecure-cluster"] if insecure_cluster else []
    if not submit_grid(grid, load_grid(grid).name, folder or str(Path.cwd()), options, lambda text: print(text, end="", flush=True)):
        raise typer.Exit(FAILED)


@app.command()
def status(grid: GridFile, as_json: Json = False) -> None:
    """Show how far a grid is: steps by state, and every point."""
    made, store = _plan(grid)
    states = [(step, step.state(store)) for step in made.steps()]
    counts: dict[str, dict[str, int]] = {}
    for step, state in states:
        counts.setdefault(step.kind, {}).setdefault(state, 0)
        counts[step.kind][state] += 1
    if as_json:
        points = [{"slug": p.train.slug, "id": p.train.id, "state": p.train.state(store)} for p in made.points]
        print(json.dumps({"steps": counts, "points": points}, indent=1))
        return
    from rich.table import Table

    table = Table("step", "done", "running", "missing", "unresolved", box=None)
    for kind, by_state in counts.items():
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
    made, store = _plan(grid)
    mirror = _Mirror(made, store)
    mirror()
    mirror.finish()
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
    for root, plans in by_store.items():
        garbage = find_garbage(plans, stores[root])
        for item in garbage:
            out.print(f"{'would remove' if dry_run else 'removed'} {item.path} ({item.bytes / 1e6:,.1f} MB)", soft_wrap=True)
            if not dry_run:
                io.delete(item.path)
        total = sum(item.bytes for item in garbage) / 1e6
        out.print(f"{root}: {len(garbage)} folders, {total:,.1f} MB", highlight=False, soft_wrap=True)


@app.command()
def why(
    a: Annotated[str, typer.Argument(metavar="A", help="an artifact's id")],
    b: Annotated[str, typer.Argument(metavar="B", help="another one's")],
    store: Annotated[Path, typer.Option(help="the store; by default the one below runs/ that knows both")] = Path("runs"),
) -> None:
    """Say in which fields two artifacts differ, following their inputs to the first cause."""
    from kdray.plan.why import differences
    from kdray.store import Store

    for root in [store, *sorted(path for path in store.glob("*") if path.is_dir())]:
        try:
            found = list(differences(Store(root), a, b))
        except KeyError:
            continue
        for field, left, right in found:
            out.print(f"{field}: {left!r} | {right!r}", highlight=False, soft_wrap=True)
        if not found:
            out.print("the same")
        return
    raise InputError("ids", f"no store below {store} knows both {a} and {b}", "take ids from `kdray plan`, or give --store")


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
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        err.print("interrupted: nothing finished is lost, the same command goes on")
    if code:
        sys.exit(code)


class _Mirror:
    """Keeps the MLflow view up to date; a view that cannot be written never stops the run."""

    def __init__(self, made: Plan, store: Store) -> None:
        from kdray.track.mirror import Mirror

        self._mirror = Mirror(made, store)
        self._warned = False

    def __call__(self) -> None:
        self._try(self._mirror.update)

    def finish(self) -> None:
        self._try(self._mirror.finish)

    def _try(self, action: Any) -> None:
        from kdray.track.mirror import TRACKING_ERRORS

        try:
            action()
        except TRACKING_ERRORS as error:
            if not self._warned:
                reason = str(error).splitlines()[0]
                err.print(f"[yellow]MLflow cannot be written ({escape(reason)}); `kdray track` rebuilds it later")
            self._warned = True


def _open(path: Path) -> tuple[Grid, Store, Outer]:
    from kdray.store import Outer, Store

    spec = load_grid(path)
    store = Store(spec.runtime.store)
    return spec, store, Outer(store.root)


def _plan(path: Path) -> tuple[Plan, Store]:
    from kdray.plan import make_plan

    spec, store, outer = _open(path)
    return make_plan(spec, outer), store


def _plan_as_json(made: Plan, store: Store) -> dict[str, Any]:
    from kdray.plan.sizes import size_of_labels

    steps = [
        {
            "kind": step.kind,
            "slug": step.slug,
            "id": step.id,
            "state": step.state(store),
            "inputs": {name: needed.id for name, needed in step.inputs.items()},
            **({"bytes": size.total} if step.kind == "soften" and (size := size_of_labels(step, store)) else {}),
        }
        for step in made.steps()
    ]
    points = [
        {
            **vars(point.point),
            "slug": point.train.slug,
            "id": point.train.id,
            "state": point.train.state(store),
            "inputs": {name: needed.id for name, needed in point.train.inputs.items()},
        }
        for point in made.points
    ]
    return {"grid": made.grid.name, "store": str(store.root), "steps": steps, "points": points}


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


def _coloured(state: str) -> str:
    colour = {"done": "green", "running": "cyan", "missing": "yellow", "unresolved": "magenta"}[state]
    return f"[{colour}]{state}[/]"
