"""What a store has of a grid, damaged."""

from __future__ import annotations

import pytest

from kdray.plan import make_plan
from kdray.report.results import CURVE, FACTUAL, SCORES, collect
from kdray.spec import InputError, load_grid
from kdray.store import Outer, Store
from tests.conftest import TinyGrid


@pytest.mark.parametrize("name", [CURVE, FACTUAL, SCORES])
@pytest.mark.parametrize("content", [b'{"loss": 1\n', b"\xff\n"])
def test_a_damaged_file_is_named_with_its_folder(tiny_grid: TinyGrid, name: str, content: bytes) -> None:
    grid = load_grid(tiny_grid({"teacher": {"model": f"file:{tiny_grid.folder}/teacher"}}))
    store = Store(grid.runtime.store)
    plan = make_plan(grid, Outer(store.root))
    step = plan.points[0].train if name == CURVE else plan.scores[0].measure
    attempt = store.begin(step.key, step.payload)
    (attempt.path / name).write_bytes(content)
    artifact = attempt.seal()
    with pytest.raises(InputError, match=rf"{name}: damaged; remove the folder {artifact.folder} and run again"):
        collect(plan, store)
