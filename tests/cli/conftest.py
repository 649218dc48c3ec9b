"""A store and the plan of the tiny grid in it, for commands that are looked at without a run."""

from __future__ import annotations

import pytest

from kdray.plan import Plan, make_plan
from kdray.spec import load_grid
from kdray.store import Outer, Store
from tests.conftest import TinyGrid


@pytest.fixture
def store(tiny_grid: TinyGrid) -> Store:
    return Store(tiny_grid.folder / "store")


@pytest.fixture
def made(tiny_grid: TinyGrid, store: Store) -> Plan:
    return make_plan(load_grid(tiny_grid()), Outer(store.root))
