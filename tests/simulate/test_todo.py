"""What a simulation takes from a plan and its price."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kdray.cost.cards import CARDS
from kdray.cost.shown import estimates
from kdray.orchestration.resources import Node, Resources
from kdray.plan import make_plan
from kdray.simulate.run import simulate
from kdray.simulate.todo import Todo, todo_of
from kdray.spec.load import parse_grid
from kdray.store import Outer, Store
from tests.conftest import TinyGrid

H100 = CARDS["H100"]
SIZES = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 16, "vocab_size": 50}


def todo(tiny_grid: TinyGrid, changes: dict[str, Any]) -> Todo:
    for role in ("student", "teacher"):
        path = tiny_grid.folder / role / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | SIZES))
    store, outer = Store(tiny_grid.folder / "store"), Outer(tiny_grid.folder / "store")
    plan = make_plan(parse_grid(tiny_grid.text(changes)), outer)
    found = estimates(plan, store, outer, [H100], 1000)
    assert isinstance(found, dict)
    return todo_of(plan, store, found["H100"], RESOURCES)


RESOURCES = Resources((Node(8, 2),), 1, beside=1)


def test_aligned_points_wait_for_the_answers_of_the_ends_of_their_plain_ones(tiny_grid: TinyGrid) -> None:
    align = {"lr": 1e-5, "steps": 3, "answers": 40, "max_new_tokens": 50}
    found = todo(tiny_grid, {"axes.aligned": [False, True], "align": align})
    assert [point.name for point in found.aligned] == [f"{point.name}-aligned" for point in found.points]
    assert len(found.points) == len(found.awaited) == 4
    by_name = {score.name: score for score in found.scores}
    ends = [max(point.exports, key=point.exports.__getitem__) for point in found.points]
    assert [by_name[name].needs for name in by_name if name in found.awaited] == [frozenset([end]) for end in ends]
    for point in found.aligned:
        [(export, at)] = point.exports.items()
        assert at == pytest.approx(point.cost.seconds)
        assert any(export in score.needs for score in found.scores), "what is aligned is scored"
    done = simulate(found, RESOURCES)
    points = [*found.points, *found.aligned]
    assert done.busy["train"] * 3600 == pytest.approx(sum(point.cost.seconds for point in points))


def test_without_aligned_points_nothing_is_awaited(tiny_grid: TinyGrid) -> None:
    found = todo(tiny_grid, {})
    assert (len(found.points), found.aligned, found.awaited) == (4, [], frozenset())


def test_a_lens_of_the_students_own_answers_comes_before_the_teacher(tiny_grid: TinyGrid) -> None:
    own = {"task": {"name": "train_answers", "limit": 30}, "metric": "support_standin", "threshold": 0.5}
    found = todo(tiny_grid, {"lens": {"own": own}})
    assert [cost.kind for cost in found.before] == ["lens", "lens", "teach", "soften"]
