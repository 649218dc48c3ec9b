"""No file of an artifact is named anywhere but in the module of its format, and no two formats share a name."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdray.artifacts import annotated, curve, lens, notes, parts, rows, scores, soft_labels
from kdray.store import locks, store
from tests.conftest import ROOT

PACKAGE = ROOT / "kdray"
NAMES = [
    *(annotated.ANNOTATED, curve.CURVE, notes.START, notes.ENDED, parts.PREFIX),
    *(lens.WEIGHTS, lens.RECORD, lens.KEPT_OUT, lens.ALIGNED),
    *(rows.ROWS, rows.SPLIT, soft_labels.HEAD, soft_labels.HEAD_FACTS),
    *(scores.SCORES, scores.ROWS, scores.FACTUAL, scores.DETAILS),
    *(store.RECORD, store.ATTEMPT, locks.DONE),
]
CACHED = {"data/tables.py": {rows.ROWS}}  # of the store's cache, whose tables have had that name from the beginning


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """The line and text of every string in a file but docstrings."""
    tree = ast.parse(path.read_text())
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.lineno, node.value


@pytest.mark.slow
def test_every_name_is_written_once() -> None:
    assert [name for name, count in Counter(NAMES).items() if count > 1] == []
    found: list[tuple[str, str]] = []
    for path in sorted(PACKAGE.rglob("*.py")):
        where = str(path.relative_to(PACKAGE))
        for _, text in literals(path):
            last = text.rpartition("/")[2]
            named = [
                name
                for name in NAMES
                if last == name or (name.endswith("-") and last.startswith(name) and " " not in text)
            ]
            found += [(where, name) for name in named if name not in CACHED.get(where, ())]
    twice = [name for name, count in Counter(name for _, name in found).items() if count > 1]
    elsewhere = [(where, name) for where, name in found if not where.startswith(("artifacts/", "store/"))]
    assert (twice, elsewhere) == ([], [])
    assert {name for _, name in found} == set(NAMES)


def test_whoever_reads_parquet_of_an_artifact_goes_through_its_module() -> None:
    outside = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if "pyarrow.parquet" in path.read_text() and path.parent.name != "artifacts"
    }
    assert outside == {"data/parquet.py"}  # the user's own tables


def test_the_page_lists_every_format_and_every_file() -> None:
    lines = [line for line in (ROOT / "docs" / "store.md").read_text().splitlines() if line.startswith("| `")]
    listed = {line.split("`")[1] for line in lines}
    formats = {
        path.stem
        for path in (PACKAGE / "artifacts").glob("*.py")
        if re.search(r"^(def|async def) write_", path.read_text(), re.M)
    }
    assert listed == (formats - {"tables"}) | {"notes", "lens"}
    page = "\n".join(lines)
    assert [name for name in NAMES if f"`{name}" not in page] == [store.RECORD, store.ATTEMPT, locks.DONE]


@pytest.mark.parametrize("kind", ["stages", "orchestration"])
def test_formats_need_no_ray(kind: str) -> None:
    for path in (PACKAGE / "artifacts").glob("*.py"):
        assert f"kdray.{kind}" not in path.read_text()
