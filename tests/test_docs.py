"""What the documentation shows runs, and what it lists is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap

import pytest

from kdray.spec import declare
from kdray.spec.components import components
from tests.conftest import ROOT, TinyGrid
from tests.report.test_frames import CHANGES, Finished


def examples() -> dict[str, str]:
    """The indented code of docs/python.md by heading."""
    text = (ROOT / "docs" / "python.md").read_text()
    sections = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {
        title: textwrap.dedent("\n".join(line for line in body.splitlines() if line.startswith("    ") or not line))
        for title, body in zip(sections[::2], sections[1::2], strict=True)
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", sorted(re.findall(r"python -m (benchmarks\.\w+)", (ROOT / "docs" / "speed.md").read_text()))
)
def test_a_benchmark_starts_as_it_is_told(name: str) -> None:
    command = [sys.executable, "-m", name, "--help"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (said.returncode, "usage" in said.stdout) == (0, True), said.stderr


def test_the_loss_example_runs() -> None:
    names: dict[str, object] = {}
    exec(examples()["The loss"], names)
    assert float(names["loss"]) > 0  # type: ignore[arg-type]
    assert names["student_logits"].grad.any()  # type: ignore[attr-defined]


def test_the_store_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    exec(examples()["Grids and stores"], names)
    assert names["grid"].name == "quickstart"  # type: ignore[attr-defined]


@pytest.mark.slow
def test_the_scores_example_runs(
    tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over a grid that has scores, of answers and of held-out losses."""
    made = Finished(tiny_grid, CHANGES, lambda _: True)
    (tiny_grid.folder / "grids").mkdir()
    made.path.rename(tiny_grid.folder / "grids" / "quickstart.yaml")
    monkeypatch.chdir(tiny_grid.folder)
    exec(examples()["Scores"], {})
    shown = capsys.readouterr().out
    assert re.search(r"^SeqKD \+ KD 1 .*\d\.\d", shown, re.MULTILINE)
    assert re.search(r"^item .*\n10 +\d", shown, re.MULTILINE)


KINDS = (
    declare.Recipe,
    declare.Template,
    declare.Form,
    declare.Loss,
    declare.Schedule,
    declare.Engine,
    declare.Task,
    declare.Decoding,
)


def test_every_component_is_in_the_page_on_grid_files() -> None:
    """Its table of fields is held to the schema by tests/spec/test_schema.py."""
    page = (ROOT / "docs" / "grid.md").read_text()
    for kind in KINDS:
        for name in components(kind):
            assert name in page, name


def test_every_metric_is_in_the_page_on_answers() -> None:
    page = (ROOT / "docs" / "summaries.md").read_text()
    for name, metric in components(declare.Metric).items():
        assert f"| `{name}` | {', '.join(metric.declared.scores)}" in page, name


def test_the_tree_in_the_readme_is_the_packages() -> None:
    readme = (ROOT / "README.md").read_text()
    for folder in (ROOT / "kdray").iterdir():
        if (folder / "__init__.py").is_file():
            assert f"      {folder.name}/ " in readme, folder.name
    for link in re.findall(r"\]\((docs/[^)]+)\)", readme):
        assert (ROOT / link).is_file(), link
