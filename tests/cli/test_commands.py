"""The commands together: exit codes, one line for wrong input, the help."""

from __future__ import annotations

import errno
import importlib.metadata
import math
import os
import re
import signal
import time
from pathlib import Path

import pytest
import typer

from kdray.cli import app, shared
from kdray.cli.shared import FAILED
from kdray.orchestration.session import QUIET
from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.store import Outer, Store
from kdray.track.address import SERVER
from kdray.track.connection import ENVIRONMENT
from tests.cli.real import kdray
from tests.conftest import Run, TinyGrid, tree_of
from tests.plan.conftest import seal

# wrong input: tests/cli/test_bad_inputs.py has the table


@pytest.mark.parametrize(
    "command", ["plann grid.yaml", "plan --jsn grid.yaml", "plan", "why", "gc", "plan a.yaml b.yaml"]
)
def test_wrong_usage_is_code_2_without_a_traceback(command: str, run: Run) -> None:
    code, stdout, stderr = run(*command.split())
    assert (code, stdout) == (2, "")
    assert "Usage: kdray" in stderr
    assert "Traceback" not in stderr


def test_what_a_user_wrote_is_never_read_as_markup(run: Run, tiny_grid: TinyGrid) -> None:
    tiny_grid({"train.dtype": "[bold]x[/]"})
    assert '"[bold]x[/]"' in run("plan", "grid.yaml")[2]


def test_an_interruption_is_code_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shared, "load_grid", interrupted)
    code, stdout, stderr = run("plan", "grid.yaml")
    assert (code, stdout, stderr.count("\n")) == (130, "", 1)
    assert stderr.startswith("interrupted: nothing finished is lost")


def test_sigterm_ends_a_command_that_a_script_has_started_in_the_background(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Ctrl-C is ignored."""

    def terminated(_: Path) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        raise typer.Exit(FAILED)

    monkeypatch.setattr(shared, "load_grid", terminated)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run("plan", "grid.yaml")[0] == 143
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    shared.print_json({"loss": [math.nan, 1.5, math.inf], "NaN": "NaN"})
    assert capsys.readouterr().out == '{"loss": [null, 1.5, null], "NaN": "NaN"}\n'


def test_a_run_that_is_not_complete_is_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def incomplete(_: Path) -> None:
        raise typer.Exit(FAILED)

    monkeypatch.setattr(shared, "load_grid", incomplete)
    assert run("plan", "grid.yaml")[0] == 1


@pytest.mark.parametrize("far", [False, True], ids=["here", "in-a-worker"])
def test_a_full_disk_is_one_line_and_code_1(far: bool, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import RayTaskError

    def full(_: Path) -> None:
        error = OSError(errno.ENOSPC, "Error writing bytes to file")
        raise RayTaskError("prepare", "a traceback", error).as_instanceof_cause() if far else error

    monkeypatch.setattr(shared, "load_grid", full)
    said = "error No space left on device; make room, then the same command goes on\n"
    assert run("plan", "grid.yaml") == (1, "", said)


def test_a_bug_of_ours_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "load_grid", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("plan", "grid.yaml")


# the real command


def test_the_real_command_says_what_is_wrong(tiny_grid: TinyGrid) -> None:
    path = tiny_grid({"axes.alpha": [-1]})
    before = tree_of(tiny_grid.folder)
    answer = kdray("run", path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr == "error axes.alpha.0: -1; must be greater than or equal to 0\n"
    assert tree_of(tiny_grid.folder) == before


@pytest.mark.slow
def test_what_a_locale_has_not_is_written_in_what_it_has(tiny_grid: TinyGrid) -> None:
    found = kdray("status", tiny_grid(name="größe.yaml"), PYTHONIOENCODING="ascii")
    assert (found.returncode, found.stderr) == (0, "")
    assert r"gr\xf6\xdfe.yaml` does what is missing" in found.stdout


@pytest.mark.slow
def test_the_real_command_knows_its_commands() -> None:
    answer = kdray("plann")
    assert answer.returncode == 2
    assert "No such command 'plann'" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("said", [None, "0"])
def test_the_hubs_client_tells_nothing_unless_the_environment_says_so(
    said: str | None, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", said or "")
    if said is None:
        monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY")
    assert run("schema")[0] == 0
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == (said or "1")
    assert {name: QUIET[name] for name in ("HF_HUB_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")} == {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    assert ENVIRONMENT["MLFLOW_DISABLE_TELEMETRY"] == SERVER["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version") == (0, f"kdray {importlib.metadata.version('kdray')}\n", "")
    assert run("--version", "plan")[0] == 0


@pytest.mark.slow
def test_help_has_a_line_for_every_command() -> None:
    answer = kdray("--help", COLUMNS="300", TERMINAL_WIDTH="300")
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    names |= {group.name for group in app.registered_groups if group.name}
    assert {"check", "plan", "run", "status", "report", "track", "gc", "why"} <= names
    listed = dict(re.findall(r"^│ ([a-z]+) {2,}([^│]*\S)", answer.stdout, re.MULTILINE))
    assert set(listed) == names
    assert list(listed) == [
        "check",
        "plan",
        "simulate",
        "run",
        "score",
        "submit",
        "status",
        "logs",
        "stop",
        "hold",
        "release",
        "report",
        "rate",
        "track",
        "gc",
        "schema",
        "why",
        "metadata",
        "curate",
        "align",
        "lens",
    ], "as a grid is used"
    assert all(len(line) > 20 for line in listed.values())
    assert "Exit codes: 0 done" in answer.stdout


@pytest.mark.slow
def test_the_shell_completes_commands() -> None:
    answer = kdray(_KDRAY_COMPLETE="complete_bash", COMP_WORDS="kdray s", COMP_CWORD="1")
    assert answer.stdout.split() == ["simulate", "score", "submit", "status", "stop", "schema"]


@pytest.mark.parametrize("command", ["plan", "status", "report", "gc --dry-run", "track"])
def test_a_damaged_done_is_one_line(command: str, run: Run, tiny_grid: TinyGrid) -> None:
    path = tiny_grid()
    store = Store(tiny_grid.folder / "store")
    [sealed] = seal(store, make_plan(load_grid(path), Outer(store.root)).points[0].train)
    (sealed.folder / "DONE").write_text("{}")
    code, stdout, stderr = run(*command.split(), path)
    assert (code, stdout) == (2, "")
    assert re.fullmatch(r"error [^\n]+/DONE: damaged; remove the folder [^\n]+\n", stderr)
