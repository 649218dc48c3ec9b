"""The commands together: exit codes, one line for wrong input, the help."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
import typer

from kdray.cli import app, shared
from kdray.cli.shared import FAILED
from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.store import Outer, Store
from tests.cli.real import kdray
from tests.conftest import Run, TinyGrid, tree_of
from tests.plan.conftest import seal

# wrong input


WRONG = {
    "no file": "plan nowhere.yaml",
    "a folder": "check .",
    "an empty file": "check empty.yaml",
    "a misspelt field": "plan misspelt.yaml",
    "no data": "plan nodata.yaml",
    "no data, status": "status nodata.yaml",
    "no data, run": "run nodata.yaml",
    "no data, gc": "gc nodata.yaml",
    "no data, stop": "stop nodata.yaml x",
    "no file, hold": "hold nowhere.yaml",
    "no ids yet, logs": "logs unresolved.yaml lr0.0001-b2-a0-s0",
    "no weights": "check noweights.yaml --offline",
    "unresolved, gc": "gc --dry-run unresolved.yaml",
    "unknown ids": "why 0123456789ab ba9876543210",
    "ids that are patterns": "why * **",
    "no such store": "why a b --store nowhere",
    "one id": "why 0123456789ab",
    "why no file": "why nowhere.yaml",
    "why without a store": "why grid.yaml",
    "why of data that are not there": "why nodata.yaml",
    "a grid with too long a name": f"plan {'a' * 300}.yaml",
    "a store with too long a name": "plan longstore.yaml",
    "a store that is the root": "plan rootstore.yaml",
    "a store with a zero byte": "status zerostore.yaml",
    "a store of nobody": "gc nobody.yaml",
    "a store that is a file": "report filestore.yaml",
    "a store in a bucket": "plan bucketstore.yaml",
    "a store in a bucket, gc": "gc bucketstore.yaml",
    "a store in a variable": "status variablestore.yaml",
    "scores in a bucket": "score --model file:student --tasks xsum --store s3://bucket/x",
    "scores in a variable": "score --model file:student --tasks xsum --store $SCRATCH/x",
    "scores tracked in a variable": "score --model file:student --tasks xsum --mlflow sqlite:///$SCRATCH/x.db",
    "ids in a bucket": "why a b --store s3://bucket/x",
    "a job's relative folder": "submit grid.yaml --folder x",
    "a job's folder in a bucket": "submit grid.yaml --folder gs://x",
    "half a character": "plan half.yaml",
    "a scheme that MLflow does not know": "track --serve nope.yaml",
}


@pytest.mark.parametrize("command", WRONG.values(), ids=[name.replace(" ", "-") for name in WRONG])
def test_wrong_input_is_one_line_and_code_2_and_writes_nothing(command: str, run: Run, tiny_grid: TinyGrid) -> None:
    (tiny_grid.folder / "empty.yaml").write_text("")
    tiny_grid({"train.stepps": 3}, "misspelt.yaml")
    tiny_grid({"data.source": "file:nowhere.jsonl"}, "nodata.yaml")
    tiny_grid({"student.model": f"file:{tiny_grid.folder}/bare"}, "noweights.yaml")
    (tiny_grid.folder / "bare").mkdir()
    tiny_grid({"student.model": "hf:org/student"}, "unresolved.yaml")
    for name, store in {"long": "HERE/" + "a" * 300, "root": "/", "zero": "a\0b", "file": "HERE/rows.jsonl"}.items():
        tiny_grid({"runtime.store": store}, f"{name}store.yaml")
    tiny_grid()
    for name, store in {"bucket": "s3://bucket/x", "variable": "$SCRATCH/x"}.items():
        tiny_grid({"runtime.store": store}, f"{name}store.yaml")
    tiny_grid({"runtime.store": "~nosuchuser/x"}, "nobody.yaml")
    tiny_grid({"runtime.mlflow": "nope://host"}, "nope.yaml")
    (tiny_grid.folder / "half.yaml").write_text(tiny_grid.text().replace("Does it work?", '"\\ud800"'))
    before = tree_of(tiny_grid.folder)
    code, stdout, stderr = run(*command.split())
    assert (code, stdout) == (2, "")
    assert re.fullmatch(r"error [^\n]+: [^\n]+; [^\n]+\n", stderr)
    assert tree_of(tiny_grid.folder) == before


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


def test_a_run_that_is_not_complete_is_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def incomplete(_: Path) -> None:
        raise typer.Exit(FAILED)

    monkeypatch.setattr(shared, "load_grid", incomplete)
    assert run("plan", "grid.yaml")[0] == 1


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
def test_the_real_command_knows_its_commands() -> None:
    answer = kdray("plann")
    assert answer.returncode == 2
    assert "No such command 'plann'" in answer.stderr
    assert "Traceback" not in answer.stderr


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
