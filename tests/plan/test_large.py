"""The plan of a large grid: work grows with its steps, counted and not timed."""

from __future__ import annotations

import pytest

from kdray.plan import make_plan
from kdray.plan import steps as module
from kdray.spec.load import parse_grid
from kdray.store import Outer
from tests.conftest import TinyGrid


def test_a_step_is_hashed_once_however_many_there_are(tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []

    def counting(payload: dict[str, object]) -> str:
        hashed.append(payload)
        return real(payload)

    real = module.fingerprint
    monkeypatch.setattr(module, "fingerprint", counting)
    for seeds in (5, 50):
        hashed.clear()
        grid = parse_grid(tiny_grid.text({"axes.seed": list(range(seeds))}))
        plan = make_plan(grid, Outer(tiny_grid.folder / "store"))
        steps = [step for step in plan.steps() if step.id]
        assert len(plan.points) % seeds == 0
        assert len(steps) > 3 * len(plan.points)
        assert len(hashed) <= 2 * len(steps)
