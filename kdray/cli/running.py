"""Doing what is missing of a grid: here, or as a job of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from kdray.cli.shared import (
    FAILED,
    GridFile,
    Insecure,
    err,
    open_grid,
    out,
    print_mlflow,
    print_report,
    print_unwritten,
)
from kdray.spec import InputError, load_grid

if TYPE_CHECKING:
    from kdray.plan import Plan
    from kdray.store import Outer, Store


def run(grid: GridFile, insecure_cluster: Insecure = False) -> None:
    """Do all that is missing of a grid: train, score, report. The same command goes on after any interruption."""
    from kdray.check.checks import check_grid
    from kdray.check.machine import idle_workers
    from kdray.data.look import look_into
    from kdray.run import resolve

    spec, store, outer = open_grid(grid)
    check_grid(spec, outer, offline=False, look=look_into)
    for note in idle_workers(spec):
        out.print(f"[yellow]note[/] {escape(note)}", soft_wrap=True, highlight=False)
    do(resolve(spec, outer), store, outer, insecure_cluster, grid)


def submit(
    grid: GridFile,
    folder: Annotated[
        str | None, typer.Option(help="the folder on the cluster to run in; by default the path of this one")
    ] = None,
    insecure_cluster: Insecure = False,
) -> None:
    """Run a grid as a job of the cluster behind RAY_API_SERVER_ADDRESS, and show its output.

    A second call follows the first job.
    """
    from kdray.orchestration.submit import submit as submit_grid
    from kdray.spec.paths import local_path

    if (
        folder is not None and not Path(local_path(folder, "--folder")).is_absolute()
    ):  # it would be one that goes with the job
        raise InputError("--folder", f"'{folder}' is relative", "give the whole path of a folder that all nodes see")
    options = ["--insecure-cluster"] if insecure_cluster else []
    if not submit_grid(
        grid, load_grid(grid).name, folder or str(Path.cwd()), options, lambda text: print(text, end="", flush=True)
    ):
        raise typer.Exit(FAILED)


def do(made: Plan, store: Store, outer: Outer, insecure: bool, file: Path | None = None) -> None:
    """Do what is missing of a plan, and show what came out; `file` is what it was made of."""
    from kdray.cli.progress import Terminal
    from kdray.orchestration.notify import Notifier
    from kdray.report.chosen import Choices
    from kdray.run import run as run_plan
    from kdray.track.follow import Follower
    from kdray.track.mirror import Mirror

    name, every = made.grid.name, list(Choices(made, store).narrowed().steps())
    missing = [step for step in every if step.state(store) != "done"]
    failed: dict[str, str] = {}
    notifier = Notifier(name, made.grid.runtime.notify, lambda text: out.print(text, highlight=False, soft_wrap=True))
    with not_started_is_one_line(), notifier.ending():
        mirror = Mirror(made, store)
        view = Follower(mirror, lambda reason: print_unwritten(reason, "`kdray track` rebuilds it later"))
        if missing:
            out.print(f"{name}: {len(missing)} of {len(every)} steps to do", highlight=False)
            with Terminal(out) as progress:
                failed = run_plan(made, store, outer, progress, view, insecure=insecure, failing=notifier.failing)
        else:
            out.print(f"{name}: all {len(every)} steps are done", highlight=False)
        print_report(made, store, file)
        if missing or not mirror.is_finished:  # the run that did the last step may have ended before
            view.finish()  # it has the report too
        print_mlflow(made, store)
        left = [step for step in Choices(made, store).narrowed().steps() if step.state(store) != "done"]
    if not left:
        if missing:
            notifier.tell("done", "all is done")
        return
    stopped, early = _stopped(made, store)
    named = escape(str(file))
    if early:
        advice = f"without `search` in {named} the same command trains them to their end"
        out.print(f"[yellow]stopped early:[/] {', '.join(early)}; {advice}", highlight=False, soft_wrap=True)
    if early and not stopped and not failed:
        notifier.tell("done", f"all is done but {len(early)} points, stopped early")
        return
    if stopped:
        advice = f"`kdray release {named} POINT...`, then the same command goes on with them"
        err.print(f"[yellow]stopped:[/] {', '.join(stopped)}; {advice}", highlight=False, soft_wrap=True)
    if failed or not stopped:
        err.print(f"[red]incomplete:[/] {len(failed)} steps failed; the same command tries them again")
    notifier.tell("incomplete", f"{len(left)} steps are left: {len(failed)} failed, {len(stopped)} points stopped")
    raise typer.Exit(FAILED)


@contextlib.contextmanager
def not_started_is_one_line() -> Iterator[None]:
    """That Ray does not come up is no fault of ours, nor of what was asked."""
    from kdray.orchestration.session import NotStarted

    try:
        yield
    except NotStarted as error:
        err.print(f"[red]error[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(FAILED) from None


def _stopped(made: Plan, store: Store) -> tuple[list[str], list[str]]:
    """The points that are left out because a person asked for it, and those that a search has stopped."""
    from kdray.store import Control

    control, points = Control(store.root), [point.train for point in made.points if not store.get(point.train.key)]
    stopped, early = [], []
    for step in points:
        if control.is_stopped(step.key.id):
            (early if control.early(step.key.id) else stopped).append(step.slug)
    return stopped, early
