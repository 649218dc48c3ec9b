"""tests/example_package: a loss and a metric of somebody else's distribution, from the grid file to their numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT, Install, Run, TinyGrid

FOLDER = ROOT / "tests" / "example_package"
PROJECT = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
CHANGES: dict[str, Any] = {"objective.loss": "squared_error", "score.metrics": [{"name": "seen_words", "lower": False}]}
DISTRIBUTION = {"name": "kdray-example", "version": "0.1.0"}
LOOK = """
import sys
from kdray.cli import main
grid, *commands = sys.argv[1:]
for command in commands:
    sys.argv = ["kdray", *command.split(), grid]
    main()
heavy = {"torch", "ray", "transformers", "mlflow", "datasets", "numpy", "pyarrow", "kdray_example"}
assert not heavy.intersection(sys.modules), heavy.intersection(sys.modules)
"""


@pytest.fixture
def example(install: Install, monkeypatch: pytest.MonkeyPatch) -> Install:
    """As `pip install tests/example_package` leaves it."""
    monkeypatch.syspath_prepend(FOLDER)
    install(PROJECT["entry-points"], PROJECT["name"], PROJECT["version"])
    return install


@pytest.mark.slow
def test_a_grid_is_checked_and_planned_with_it(example: Install, run: Run, tiny_grid: TinyGrid) -> None:
    path = tiny_grid(CHANGES)
    assert run("check", "--offline", path) == (0, f"{path}: fine, 4 points\n", "")
    code, stdout, _ = run("plan", "--json", path)
    assert (code, json.loads(stdout)["distributions"]) == (0, {"kdray-example": "0.1.0"})
    schema = json.loads(run("schema")[1])
    assert "squared_error" in [each.get("const") for each in schema["$defs"]["loss"]["anyOf"]]
    assert "(kdray-example 0.1.0)" in json.dumps(schema["$defs"]["metric"])
    assert run("plan", tiny_grid({"objective.loss": "squared_eror"}))[2].startswith(
        "error objective.loss: no loss 'squared_eror'; did you mean 'squared_error'? (known: "
    )
    assert run("check", "--offline", tiny_grid({"score.metrics": [{"name": "seen_words", "lowr": False}]}))[2] == (
        "error score.metrics.0.lowr: metric 'seen_words' has no such field; did you mean 'lower'? (known: lower)\n"
    )


@pytest.mark.slow
def test_the_real_command_finds_it_and_runs_none_of_it(tiny_grid: TinyGrid, tmp_path: Path) -> None:
    """Where Python itself looks for what is installed, in a process of its own."""
    made = Install(tmp_path / "site")
    made(PROJECT["entry-points"], PROJECT["name"], PROJECT["version"])
    path, commands = tiny_grid(CHANGES), ["check --offline", "plan --json", "status"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(made.site), str(FOLDER)])}
    command = [sys.executable, "-c", LOOK, str(path), *commands]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert '"distributions": {\n  "kdray-example": "0.1.0"\n }' in answer.stdout


def test_the_objective_takes_the_loss(example: Install) -> None:
    from kdray.distill.objective import Objective

    objective = Objective(alpha=2.0, vocab_size=2, loss="squared_error")
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -torch.inf]])
    sums = objective(student, teacher, torch.tensor([0]))
    assert sums.soft.item() == pytest.approx(0.5)  # (1 - 1/2)^2 + (0 - 1/2)^2
    assert sums.total.item() == pytest.approx(sums.hard.item() + 2 * 0.5)


def test_answers_are_scored_by_the_metric(example: Install) -> None:
    from kdray.score.answers import Given, load_metric, score_answers

    texts, asked = (
        ["it rained today", "It", ""],
        {"error": None, "question": "", "source": "It rained all day", "references": [], "wrong": []},
    )
    rows = [asked | {"example": i, "answer": text} for i, text in enumerate(texts)]
    by_case = {}
    for lower in (True, False):
        scores, kept = score_answers(rows, [load_metric("seen_words", {"lower": lower}, Given({}))], count_empty=False)
        by_case[lower] = (scores["seen"]["value"], scores["seen"]["n"], [row["seen"] for row in kept])
    assert by_case[True] == (pytest.approx((200 / 3 + 100) / 2), 2, [pytest.approx(200 / 3), 100, None])
    assert by_case[False] == (pytest.approx((100 / 3 + 100) / 2), 2, [pytest.approx(100 / 3), 100, None])


@pytest.mark.slow
def test_the_report_says_whose_they_are(example: Install, run: Run, tiny_grid: TinyGrid) -> None:
    path = tiny_grid(CHANGES)
    said = "Not kdray's own but kdray-example 0.1.0's: the loss squared_error, the metric seen_words."
    (tiny_grid.folder / "store").mkdir()
    code, stdout, _ = run("report", path)
    assert code == 0
    assert said in stdout.splitlines()
    assert f"- {said}\n" in (tiny_grid.folder / "store" / "report" / "tiny" / "report.md").read_text()
    assert "Not kdray's own" not in run("report", tiny_grid())[1]
