"""The model stage: which field of the grid file a cut that fails is told by."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from kdray.cli.progress import Terminal
from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.stages import model as module
from kdray.stages.model import field_at_fault, model
from kdray.store import Outer, Store
from tests.conftest import TinyGrid


def test_a_worker_that_is_in_another_folder_reads_the_same_model(
    tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_grid.folder)
    grid = load_grid(tiny_grid({"student.model": "file:student"}))
    outer, given = Outer(Store(grid.runtime.store).root), []
    plan = make_plan(grid, outer)
    task = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda *arguments: given.append(arguments)))
    monkeypatch.setattr(module, "ray", SimpleNamespace(remote=lambda _: task, get=lambda _: None))
    with Terminal(Console(file=io.StringIO())) as progress:
        attempt = SimpleNamespace(path=tiny_grid.folder / "attempt")
        work = SimpleNamespace(plan=plan, progress=progress, outer=outer, missing=list, seal=lambda *_: None)
        work.each = lambda steps: ((step, attempt) for step in steps)
        model([plan.models["student"]], cast(Any, work))
    assert str(given[0][0]) == f"file:{tiny_grid.folder}/student"


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_cut_is_told_by_the_field_that_asks_for_it(role: str, tiny_grid: TinyGrid) -> None:
    """The teacher of this grid is tuned: what the plan calls it by is another step."""
    grid = load_grid(tiny_grid({f"{role}.drop_layers": [0, 1]}))
    plan = make_plan(grid, Outer(Store(grid.runtime.store).root))
    [step] = [step for step in plan.steps() if step.kind == "model" and step.inputs.steps]
    assert field_at_fault(step, cast(Any, SimpleNamespace(plan=plan))) == f"{role}.drop_layers"
