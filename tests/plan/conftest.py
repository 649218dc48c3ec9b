"""Plans of the tiny grid, and stores that hold what its stages would have made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kdray.plan import Plan, Step, make_plan
from kdray.spec.load import load_grid
from kdray.store import Artifact, Outer, Store
from tests.conftest import TinyGrid

MakePlan = Callable[..., Plan]


@pytest.fixture
def plan(tiny_grid: TinyGrid) -> MakePlan:
    """`plan({"axes.lr": [1e-5]})`: the plan of the tiny grid with these changes."""

    def make(changes: dict[str, Any] | None = None) -> Plan:
        grid = load_grid(tiny_grid(changes))
        return make_plan(grid, Outer(Store(grid.runtime.store).root))

    return make


@pytest.fixture
def store(tiny_grid: TinyGrid) -> Store:
    return Store(tiny_grid.folder / "store")


def seal(store: Store, *steps: Step) -> list[Artifact]:
    """Finish steps as if they had been done."""
    made = []
    for step in steps:
        attempt = store.begin(step.key, step.payload or {})
        (attempt.path / "result").write_text(step.key.id)
        made.append(attempt.seal())
    return made
