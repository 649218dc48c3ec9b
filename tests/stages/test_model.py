"""The model stage: which field of the grid file a cut that fails is told by."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.stages.model import field_at_fault
from kdray.store import Outer, Store
from tests.conftest import TinyGrid


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_cut_is_told_by_the_field_that_asks_for_it(role: str, tiny_grid: TinyGrid) -> None:
    """The teacher of this grid is tuned: what the plan calls it by is another step."""
    grid = load_grid(tiny_grid({f"{role}.drop_layers": [0, 1]}))
    plan = make_plan(grid, Outer(Store(grid.runtime.store).root))
    [step] = [step for step in plan.steps() if step.kind == "model" and step.inputs.steps]
    assert field_at_fault(step, cast(Any, SimpleNamespace(plan=plan))) == f"{role}.drop_layers"
