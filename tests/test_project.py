"""The rules that machines keep: style, types and which layer may import which."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kdray.spec import load_grid
from tests.conftest import ROOT

GRIDS = sorted((ROOT / "grids").glob("*.yaml"))


def holds(*command: str) -> None:
    """The tool beside this Python finds nothing to say about the project."""
    tool = Path(sys.executable).with_name(command[0])
    answer = subprocess.run([str(tool), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, f"{' '.join(command)}\n{answer.stdout}{answer.stderr}"


def test_style() -> None:
    holds("ruff", "check", "--no-cache", ".")
    holds("ruff", "format", "--check", "--no-cache", ".")


def test_layers() -> None:
    holds("lint-imports", "--no-cache")


@pytest.mark.slow
def test_types() -> None:
    holds("pyright")


def test_there_are_grids_to_learn_from() -> None:
    assert {"quickstart.yaml", "dolly_smollm2.yaml"} <= {path.name for path in GRIDS}


@pytest.mark.parametrize("path", GRIDS, ids=[path.name for path in GRIDS])
def test_a_shipped_grid_is_valid_and_explained(path: Path) -> None:
    grid = load_grid(path)
    assert path.stem.startswith(grid.name.replace("-", "_"))
    assert Path(grid.runtime.store) == Path("runs") / grid.name
    assert grid.question.endswith("?")
    assert path.read_text().startswith("# ")
