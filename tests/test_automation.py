"""What runs by itself, at commits and on GitHub, names things that are there; types and completion are shipped."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, Run

WORKFLOWS = {path.stem: path for path in sorted((ROOT / ".github" / "workflows").glob("*.yaml"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def read(path: Path) -> Any:
    """A YAML file; `on` is a word, as GitHub reads it."""
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader)  # noqa: S506 - it makes texts, lists and mappings alone


def targets() -> set[str]:
    """What `make` can be asked for."""
    makefile = (ROOT / "Makefile").read_text()
    described = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == described
    return described


def commands(path: Path) -> list[str]:
    return [step["run"] for job in read(path)["jobs"].values() for step in job["steps"] if "run" in step]


def test_every_push_has_lint_and_the_unit_tier_every_night_everything() -> None:
    assert set(WORKFLOWS) == {"tests", "nightly"}
    tests, nightly = (read(WORKFLOWS[name]) for name in ("tests", "nightly"))
    assert {"push", "pull_request"} == set(tests["on"])
    assert {"schedule", "workflow_dispatch"} == set(nightly["on"])
    assert {"make lint", "make test-unit"} <= set(commands(WORKFLOWS["tests"]))
    assert {"make lint", "make test-all"} <= set(commands(WORKFLOWS["nightly"]))


@pytest.mark.parametrize("path", WORKFLOWS.values(), ids=list(WORKFLOWS))
def test_a_workflow_asks_for_what_make_has_and_for_no_rights(path: Path) -> None:
    flow = read(path)
    assert flow["permissions"] == {"contents": "read"}
    for command in commands(path):
        make, *asked = shlex.split(command)
        assert make == "make", command
        assert set(asked) <= targets(), command
    for job in flow["jobs"].values():
        assert int(job["timeout-minutes"]) <= 150
        setups = [step["with"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
        assert [PROJECT["project"]["requires-python"] == f">={setup['python-version']}" for setup in setups] == [True]
        assert all((ROOT / setup["cache-dependency-path"]).is_file() for setup in setups)


def test_hooks_are_the_tools_of_make_lint() -> None:
    hooks = [hook for repo in read(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert {hook["id"] for hook in hooks} >= {"ruff", "pyright", "lint-imports"}
    rule = re.search(r"^lint:.*\n\t(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert rule
    for hook in hooks:
        program = Path(shlex.split(hook["entry"])[0])
        assert program.parent == Path(".venv/bin")
        assert Path(sys.executable).with_name(program.name).is_file(), f"{program.name} is in no dev extra"
        assert f"$(BIN)/{program.name}" in rule[1]
        assert hook["language"] == "system"


def test_types_are_part_of_the_package() -> None:
    data = PROJECT["tool"]["setuptools"]["package-data"]["kdray"]
    for pattern in data:
        assert list((ROOT / "kdray").glob(pattern)), pattern
    assert "py.typed" in data


def test_the_shell_can_complete_commands(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_KDRAY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "kdray s")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert set(run()[1].split()) == {"schema", "score", "simulate", "status", "stop", "submit"}


def test_completion_can_be_installed_and_the_readme_says_so(run: Run) -> None:
    assert "--install-completion" in run("--help")[1]
    assert "`kdray --install-completion`" in (ROOT / "README.md").read_text()
