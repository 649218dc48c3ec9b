"""How far a grid is, once or again and again: read in the store alone, so that any machine will do that sees it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kdray.cli.shared import GridFile, Json, out, print_json, wanted_of

EVERY = 2.0  # seconds between looks
NAMED = 2  # running steps of a kind that are named
STATES = ("done", "running", "missing", "unresolved")
COLOURS = {
    "done": "green",
    "running": "cyan",
    "stopping": "yellow",
    "waiting": "blue",
    "failed": "red",
    "stopped": "yellow",
    "stopped early": "yellow",
    "missing": "yellow",
    "unresolved": "magenta",
}
FIRST = (
    "failed",
    "stopping",
    "running",
    "waiting",
    "stopped",
    "stopped early",
    "missing",
    "unresolved",
    "done",
)  # of points, watched


def status(
    grid: GridFile,
    watch: Annotated[
        bool, typer.Option("--watch", help="draw it again every 2 seconds, until all is done, a run is over, or Ctrl-C")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how far a grid is: steps by state, what they wait for, and of every point its step, loss and time left.

    It reads the store alone, and works on any machine that sees it, whether a run is at work or not.
    """
    listed = _look(grid)
    if as_json:
        print_json(listed, indent=1)
    elif watch:
        _watch(grid, listed)
    else:
        out.print(_shown(grid, listed))


def _look(grid: Path) -> dict[str, Any]:
    from kdray.plan.listing import listed_status

    return listed_status(*wanted_of(grid))


def _watch(grid: Path, listed: dict[str, Any]) -> None:
    try:
        with Live(_shown(grid, listed, watched=True), console=out, auto_refresh=False) as live:
            began = False  # whether a run was seen at work: once it is over, what it has left undone stays so
            while any(by_state.keys() - {"done"} for by_state in listed["steps"].values()):
                if began and not listed["runs"]:
                    return
                began = began or bool(listed["runs"])
                time.sleep(EVERY)
                listed = _look(grid)
                live.update(_shown(grid, listed, watched=True), refresh=True)
    except KeyboardInterrupt:  # how one leaves it: nothing was interrupted
        return


def _shown(grid: Path, listed: Mapping[str, Any], *, watched: bool = False) -> RenderableType:
    """Who works on it, the steps, what is running beside points, and the points; watched, those that move first."""
    points = listed["points"]
    if watched:
        points = sorted(points, key=lambda point: FIRST.index(point["state"]))
    parts: list[RenderableType] = [*_runs(grid, listed), _steps(listed)]
    parts += map(_line, _running(listed["running"]))
    return Group(*parts, *([_points(points)] if points else []))


def _runs(grid: Path, listed: Mapping[str, Any]) -> list[Text]:
    if not listed["runs"]:
        done = all(set(by_state) <= {"done"} for by_state in listed["steps"].values())
        return [_line("all is done" if done else f"no run is at work: `kdray run {grid}` does what is missing")]
    lines = []
    for run in listed["runs"]:
        held = f", held: no new point begins before `kdray release {grid}`" if run["held"] else ""
        lines.append(_line(f"run by process {run['pid']} on {run['host']}{held}"))
    return lines


def _steps(listed: Mapping[str, Any]) -> Table:
    table = Table("step", *STATES, "waiting for", box=None)
    for kind, by_state in listed["steps"].items():
        waits = listed["waits"].get(kind, {})
        needed = ", ".join(f"{needed} ({count})" for needed, count in sorted(waits.items()))
        table.add_row(kind, *(str(by_state.get(state, "")) for state in STATES), needed)
    return table


def _running(steps: list[dict[str, Any]]) -> list[str]:
    """A line a kind: scoring begins all at once that can be done."""
    by_kind: dict[str, list[str]] = {}
    for step in steps:
        at = f" ({step['step']}/{step['total']})" if step.get("total") else ""
        by_kind.setdefault(step["kind"], []).append(f"{step['slug']}{at}")
    lines = []
    for kind, names in by_kind.items():
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        lines.append(f"running: {kind} {', '.join(names[:NAMED])}{more}")
    return lines


def _points(points: list[dict[str, Any]]) -> Table:
    on_gpus = any(point["gpu_gib"] is not None for point in points)
    sampled = any(point["shares"] is not None for point in points)
    more = [*(["GPU memory"] if on_gpus else []), *(["sampling/teacher/rest", "sampled"] if sampled else [])]
    table = Table("point", "state", "step", "held-out loss", "left", *more, "where", box=None)
    for point in points:
        state, held = point["state"], point["heldout_ce"]
        total = "?" if point["total"] is None else point["total"]
        table.add_row(
            point["slug"],
            f"[{COLOURS[state]}]{state}[/]",
            f"{point['step']}/{total}",
            "" if held is None else f"{held:.4f}",
            "" if point["left"] is None else duration(point["left"]),
            *([_memory(point["gpu_gib"])] if on_gpus else []),
            *([_shares(point["shares"]), _length(point["sampled_length"])] if sampled else []),
            escape(point["why"] or ", ".join(filter(None, (point["node"], point["device"])))),
        )
    return table


def _memory(gib: float | None) -> str:
    return "" if gib is None else f"{gib:.1f} GiB"


def _shares(shares: Mapping[str, float] | None) -> str:
    """Of time, `61/14/25%`."""
    return "/".join(f"{100 * shares[what]:.0f}" for what in ("sampling", "teacher", "rest")) + "%" if shares else ""


def _length(mean: float | None) -> str:
    return "" if mean is None else f"{mean:.0f} tokens"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _line(text: str) -> Text:
    return Text(text, no_wrap=False)
