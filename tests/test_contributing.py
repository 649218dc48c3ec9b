"""CONTRIBUTING.md: its examples work in a copy of the package, and every place that it names is there."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

from kdray.spec.declare import KINDS
from tests.conftest import ROOT, Install, TinyGrid
from tests.test_example_package import CHANGES

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
RUN = """
import json, sys
import kdray
from kdray.cli import main
assert kdray.__file__.startswith(sys.argv[1]), kdray.__file__
for grid in sys.argv[2:]:
    for command in (["check", "--offline"], ["plan"], ["plan", "--json"]):
        sys.argv = ["kdray", *command, grid]
        main()
sys.argv = ["kdray", "schema"]
main()
"""


@dataclass(frozen=True)
class Shown:
    """One example: the file to write, its text, and what to write into a grid."""

    path: Path
    source: str
    grid: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.stem


def examples() -> dict[str, Shown]:
    """By heading: the first path in a section with a Python block, that block, and the YAML block behind it."""
    found = {}
    for title, body in re.findall(r"^### (.+)\n((?:(?!^#).*\n?)*)", PAGE, re.MULTILINE):
        path, source, grid = (
            re.search(pattern, body, re.DOTALL)
            for pattern in (r"`(kdray/[^`]+\.py)`", r"```python\n(.+?)```", r"```yaml\n(.+?)```")
        )
        assert path and source and grid, title  # noqa: PT018 - one thing: the section is whole
        found[title] = Shown(Path(path[1]), source[1], yaml.safe_load(grid[1]))
    return found


SHOWN = examples()


def test_there_is_an_example_of_every_kind() -> None:
    assert set(SHOWN) == {"A loss", "A metric", "A task", "A form of soft labels", "A recipe"}
    assert not [shown.path for shown in SHOWN.values() if (ROOT / shown.path).exists()], (
        "an example that is there already"
    )


@pytest.mark.slow
def test_the_examples_check_and_plan_in_a_copy_of_the_package(tmp_path: Path, tiny_grid: TinyGrid) -> None:
    """All in one process, which takes a second."""
    here = tmp_path / "copy"
    shutil.copytree(ROOT / "kdray", here / "kdray", ignore=shutil.ignore_patterns("__pycache__"))
    config = {"model_type": "llama", "hidden_size": 16, "vocab_size": 100}
    (tiny_grid.folder / "teacher" / "config.json").write_text(json.dumps(config))  # so that the plan looks for sizes
    tiny_grid.rows("samsum.jsonl", [{"dialogue": "A: Rain?\nB: All day.", "summary": "It rains."}])
    answers: Any = {"text": ["Paris"], "answer_start": [11]}
    tiny_grid.rows(
        "squad.jsonl",
        [{"question": f"Where {i}?", "context": "Ada is in Paris.", "answers": answers} for i in range(4)],
    )
    grids = []
    for shown in SHOWN.values():
        (here / shown.path).write_text(shown.source)
        changes = {
            f"{section}.{name}": value for section, fields in shown.grid.items() for name, value in fields.items()
        }
        grids.append(tiny_grid(changes, f"{shown.name}.yaml"))
    environment = {**os.environ, "PYTHONPATH": str(here), "COLUMNS": "200"}
    command = [sys.executable, "-c", RUN, str(here), *map(str, grids)]
    answer = subprocess.run(command, cwd=tiny_grid.folder, env=environment, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    for shown, grid in zip(SHOWN.values(), grids, strict=True):
        assert f"{grid}: fine, 4 points" in answer.stdout
        assert f'"{shown.name}"' in answer.stdout, "the schema does not know it"
    for made in ("samsum", "argmax", "squad"):  # steps that have these names
        assert re.search(rf'"slug": "[^"]*{made}', answer.stdout), made


def test_the_package_is_the_one_that_is_tested() -> None:
    folder, section = (
        ROOT / "tests" / "example_package",
        PAGE.partition("## From your own package\n")[2].partition("\n## ")[0],
    )
    shown = re.findall(r"`(pyproject\.toml|kdray_example/\w+\.py)`:\s+```(?:toml|python)\n(.+?)```", section, re.DOTALL)
    assert dict(shown) == {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".toml", ".py") and path.stem != "__init__"
    }
    grid = re.search(r"```yaml\n(.+?)```", section, re.DOTALL)
    assert grid
    assert yaml.safe_load(grid[1]) == {
        "objective": {"loss": CHANGES["objective.loss"]},
        "score": {"metrics": CHANGES["score.metrics"]},
    }


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/grid.md"])
def test_the_groups_of_entry_points_are_listed(page: str) -> None:
    named = set(re.findall(r"`(kdray\.[a-z]+)`", (ROOT / page).read_text()))
    assert {kind.group for kind in KINDS if kind.group} <= named


def load(title: str, tmp_path: Path) -> ModuleType:
    path = tmp_path / SHOWN[title].path.name
    path.write_text(SHOWN[title].source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_loss_is_one_number_a_token_and_nothing_where_both_agree(tmp_path: Path) -> None:
    loss = load("A loss", tmp_path).hellinger
    logits = torch.tensor([[1.0, 2.0, 3.0], [50.0, 0.0, 0.0]])
    assert loss(logits, logits).tolist() == pytest.approx([0, 0], abs=1e-6)
    assert loss(logits[1:], logits[1:].flip(1)).item() == pytest.approx(1, abs=1e-6)
    half = loss(torch.zeros(1, 2), torch.tensor([[0.0, -torch.inf]])).item()
    assert half == pytest.approx(1 - 0.5**0.5)


def test_the_metric_counts_shared_words(tmp_path: Path) -> None:
    from kdray.score.answers import Answer

    overlap = load("A metric", tmp_path).word_overlap
    answers = [Answer("The cat sat", references=["the cat", "a dog"]), Answer("", references=["x"]), Answer("x")]
    assert overlap(answers) == [{"overlap": pytest.approx(200 / 3)}, {"overlap": 0}, {}]
    assert overlap(answers[:1], lower=False) == [{"overlap": 25}]


def test_the_task_and_the_recipe_read_their_rows(tmp_path: Path) -> None:
    question = load("A task", tmp_path).samsum({"dialogue": " A: Rain? ", "summary": "It rains."})
    assert (question.text, question.references) == ("A: Rain?", ["It rains."])
    squad = load("A recipe", tmp_path).squad
    row = {"question": "Where? ", "context": "In Paris.", "answers": {"text": ["Paris", "in Paris"]}}
    assert vars(squad(row)) == {
        "instruction": "Answer from the text. Where?",
        "context": "In Paris.",
        "response": "Paris",
    }
    assert squad(row | {"answers": {"text": []}}) is None


def test_a_run_can_ask_by_the_task(tmp_path: Path, install: Install) -> None:
    """It has no plain-text prompts of its own, which few tasks have."""
    from kdray.data.templates.alpaca import alpaca
    from kdray.score.prompts import task_prompts
    from kdray.spec.components import bind
    from kdray.spec.declare import Task
    from kdray.spec.refs import parse_reference
    from kdray.store import Outer
    from tests.tiny import write_tokenizer

    install.module("samsum.py", SHOWN["A task"].source)
    install({"kdray.tasks": {"samsum": "samsum"}})
    (tmp_path / "rows.jsonl").write_text(json.dumps({"dialogue": "Ada is in Rome .", "summary": "Rome ."}))
    source = f"file:{tmp_path}/rows.jsonl"
    params = bind(Task, "samsum", {"source": source}, "score.tasks.0")
    [prompt] = task_prompts(
        "samsum",
        params,
        parse_reference(source),
        Outer(tmp_path / "store"),
        write_tokenizer(tmp_path / "model"),
        alpaca,
        None,
    )
    assert (prompt.source, prompt.references) == ("Ada is in Rome .", ["Rome ."])


def test_the_form_keeps_the_likeliest_token(tmp_path: Path) -> None:
    from kdray.distill.labels import Teacher
    from kdray.models.head import Head

    form = load("A form of soft labels", tmp_path).Argmax()
    head = torch.nn.Linear(3, 4, bias=False)
    states = torch.randn(5, 3)
    kept = form.keep(states, Teacher(Head(head), 4, 1.0), torch.Generator())
    labels = form.labels(kept, None)
    assert labels.ids[:, 0].tolist() == head(states).argmax(1).tolist()
    assert labels.weights.tolist() == [[1.0]] * 5
    assert labels.entropy.tolist() == [0.0] * 5


def test_every_place_that_is_named_is_there() -> None:
    new = {str(shown.path) for shown in SHOWN.values()}
    named = set(re.findall(r"`((?:kdray|tests|docs|grids|cluster|\.github)/[^` ]*)`", PAGE)) - new
    assert len(named) > 15
    assert not [path for path in sorted(named) if not (ROOT / path).exists()]
    for path, name in re.findall(r"`(kdray/[^`]+\.py)`, `(\w+)`", PAGE):
        assert re.search(rf"(def|class) {name}\b", (ROOT / path).read_text()), f"{path} has no {name}"


def test_the_ten_questions_have_one_answer_each() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?\?) \| (.+) \|$", PAGE, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 11))
    assert all("`kdray/" in answer for _, _, answer in rows)


def test_its_links_and_targets_are_there() -> None:
    headings = {
        re.sub(r"[^a-z -]", "", title.lower()).strip().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    }
    assert [link for link in re.findall(r"\]\(#([^)]+)\)", PAGE) if link not in headings] == []
    described = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {target for targets in re.findall(r"`make ([a-z -]+)`", PAGE) for target in targets.split()}
    assert {"lint", "test", "renew"} <= asked <= described
    assert "(CONTRIBUTING.md)" in (ROOT / "README.md").read_text()
