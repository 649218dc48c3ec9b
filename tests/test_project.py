"""The rules that machines keep: style, types and which layer may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
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


def imported(tree: ast.AST) -> Iterator[str]:
    """Names of modules, and of what is imported from them, wherever it stands but under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom):
            yield from [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from imported(node)


def test_imports_make_no_circle() -> None:
    """Imports inside of functions count too; `kdray` itself, which everything lies in, alone does not."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / "kdray").rglob("*.py")
    }
    graph = {
        name: {each for each in imported(ast.parse(path.read_text())) if each in paths and each not in ("kdray", name)}
        for name, path in paths.items()
    }
    for name, needs in graph.items():  # `from package import module` is no use of what the package's own file imports
        needs -= {each for each in needs if name.startswith(f"{each}.") and paths[each].name == "__init__.py"}
    assert len(list(TopologicalSorter(graph).static_order())) == len(paths)


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


def test_reports_are_utf_8_wherever_they_are_written() -> None:
    """A locale of another encoding has no ±, and other programs read them as UTF-8."""
    for path in sorted((ROOT / "kdray" / "report").rglob("*.py")):
        for call in (
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ):
            if isinstance(call.func, ast.Attribute) and call.func.attr in ("open", "write_text", "read_text"):
                assert "encoding" in [keyword.arg for keyword in call.keywords], f"{path}:{call.lineno}"
