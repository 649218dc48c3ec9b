"""What a valid grid file means: numbers, defaults, lengths and points."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kdray.spec.load import parse_grid
from kdray.spec.points import expand
from tests.conftest import ABSENT, TinyGrid


@pytest.mark.parametrize("alpha", ["0", "0.0", "-0.0", "-0"])
def test_zero_has_no_sign(alpha: str, tiny_grid: TinyGrid) -> None:
    grid = parse_grid(tiny_grid.text({"axes.alpha": "ALPHA"}).replace("ALPHA", f"[{alpha}]"))
    assert [math.copysign(1, value) for value in grid.axes.alpha] == [1]
    assert {point.slug for point in expand(grid)} == {"lr0.001-b2-a0-s0", "lr0.0001-b2-a0-s0"}


@pytest.mark.parametrize(
    ("train", "unit", "kept"),
    [
        ({"epochs": 3, "keep": [1, 2]}, "epochs", [1, 2, 3]),
        ({"epochs": 2.5, "keep": [0.5]}, "epochs", [0.5, 2.5]),
        ({"steps": 10, "keep": [10, 5]}, "steps", [5, 10]),
        ({"steps": 10}, "steps", [10]),
    ],
)
def test_the_end_is_always_kept(train: dict[str, object], unit: str, kept: list[float], tiny_grid: TinyGrid) -> None:
    grid = parse_grid(tiny_grid.text({"train": train}))
    assert (grid.train.unit, grid.train.kept) == (unit, kept)


@pytest.mark.parametrize(
    ("keep", "search", "rungs"),
    [
        ([1, 2, 4, 5], "asha", [1, 4]),
        ([1, 2, 3, 4, 5], {"name": "asha", "reduction": 2}, [1, 2, 4]),
        ([1, 3, 5], {"name": "asha", "reduction": 2}, [1, 3, 5]),
        ([1, 2, 3, 4, 5], {"name": "asha", "reduction": 2, "grace": 1.5}, [2, 3]),
        ([5], {"name": "asha", "reduction": 2, "grace": 0.1}, [5]),
        ([0.1, 0.3, 1], {"name": "asha", "grace": 0.1}, [0.1, 0.3, 1]),
    ],
)
def test_rungs_are_kept_checkpoints_in_growing_distances(
    keep: list[float], search: Any, rungs: list[float], tiny_grid: TinyGrid
) -> None:
    grid = parse_grid(tiny_grid.text({"train": {"epochs": 6, "keep": keep}, "search": search}))
    assert grid.search
    assert grid.search.rungs(grid.train) == rungs


def test_without_soft_labels_no_teacher_is_needed(tiny_grid: TinyGrid) -> None:
    assert parse_grid(tiny_grid.text({"teacher": ABSENT, "axes.alpha": [0]})).teacher is None


def test_a_read_grid_cannot_be_changed(tiny_grid: TinyGrid) -> None:
    grid = parse_grid(tiny_grid.text())
    with pytest.raises(ValueError, match="frozen"):
        grid.train.steps = 3
