"""The commands together, and how they end."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from typing import Annotated, Any

import typer
from rich.markup import escape

from kdray import __version__
from kdray.cli.aligning import align
from kdray.cli.control import hold, release, stop
from kdray.cli.curating import curate, metadata
from kdray.cli.lens import lens
from kdray.cli.logs import logs
from kdray.cli.looking import check, plan, report, schema, why
from kdray.cli.rating import rate
from kdray.cli.running import run, submit
from kdray.cli.scoring import score
from kdray.cli.shared import FAILED, INTERRUPTED, WRONG_INPUT, err
from kdray.cli.simulating import simulate
from kdray.cli.status import status
from kdray.cli.stores import gc, track
from kdray.spec import InputError

WRONG_USAGE: Any = typer.BadParameter.__mro__[2]  # ClickException: click's, or that of typer's own copy of click
TO_DO = {errno.ENOSPC: "make room", errno.EDQUOT: "make room", errno.EROFS: "let it be written"}  # where no disk helps
EPILOG = "Exit codes: 0 done, 1 something failed or is missing, 2 the input is wrong, 130 interrupted, 143 terminated."
app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Does distilling a language model from a teacher make it hallucinate less, and at which weight?\n\n"
    "Write a grid file (see grids/quickstart.yaml), then `kdray run` it. Interrupted? Run it again.",
    epilog=EPILOG,
)
for command in (
    check,
    plan,
    simulate,
    run,
    score,
    submit,
    status,
    logs,
    stop,
    hold,
    release,
    report,
    rate,
    track,
    gc,
    schema,
    why,
    metadata,
    curate,
    align,
):  # as `kdray --help` lists them
    app.command()(command)
app.add_typer(lens, name="lens")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"kdray {__version__}")
        raise typer.Exit


@app.callback()
def kdray(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and end")
    ] = False,
) -> None:
    """What all commands share."""


def main() -> None:
    """Entry point: turns wrong input into one line and exit code 2, an interruption into 130, and SIGTERM, which ends
    a command just as gently, into 143.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # the hub's client reads it when it is imported
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # in a locale without ± a run is not to end in its table
            stream.reconfigure(errors="backslashreplace")
    terminated: list[int] = []

    def terminate(signum: int, frame: object) -> None:
        terminated.append(signum)
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # of what a script starts by `kdray ... &`
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGTERM, terminate)
    try:
        code = app(
            prog_name="kdray", standalone_mode=False
        )  # typer returns the code of a typer.Exit, and 130 for an interruption
    except InputError as error:
        err.print(f"[red]error[/] {escape(str(error))}", soft_wrap=True, highlight=False)
        sys.exit(WRONG_INPUT)
    except WRONG_USAGE as error:
        error.show()
        sys.exit(WRONG_INPUT)
    except Exception as error:
        found = getattr(error, "cause", error)  # of what a worker of Ray's has raised, its own
        if isinstance(found, OSError) and found.errno in TO_DO:
            reason = f"{os.strerror(found.errno)}; {TO_DO[found.errno]}, then the same command goes on"
            code = FAILED
        elif isinstance(error, OSError) and error.filename is not None:
            reason = f"{error.filename}: {error.strerror or error}; give a path that can be used"
            code = WRONG_INPUT
        else:
            raise
        err.print(f"[red]error[/] {escape(reason)}", soft_wrap=True, highlight=False)
        sys.exit(code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        err.print("interrupted: nothing finished is lost, the same command goes on")
        code = 128 + terminated[0] if terminated else code
    if code:
        sys.exit(code)
