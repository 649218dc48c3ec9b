"""What `kdray simulate` says of the paper's grids, of wrong input, and of a cluster that is used badly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdray.cost.cards import CARDS
from kdray.plan import make_plan
from kdray.simulate.run import BATCH, Hours, Outcome
from kdray.simulate.shown import advice_for, listed, simulated
from kdray.spec.errors import InputError
from kdray.spec.load import parse_grid
from kdray.store import Outer, Store
from tests.conftest import Run, TinyGrid
from tests.test_paper_grids import FAMILIES, fetch, grid_of

H100 = CARDS["H100"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_papers_grids_use_32_gpus_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for role in ("student", "teacher"):
        fetch(tmp_path / "hub", grid_of(name), role)
    outer, store = Outer(tmp_path / "store"), Store(tmp_path / "store")
    found, _ = simulated(make_plan(grid_of(name), outer), store, outer, H100, 4, 8, None, 11_852)
    assert found.utilisation > 0.97
    told = listed(found, H100)
    assert {"makespan_h", "utilisation", "idle_h"} <= json.loads(json.dumps(told)).keys()
    assert sum(told["busy_h"].values()) + sum(told["idle_h"].values()) == pytest.approx(32 * found.makespan)


@pytest.mark.parametrize(
    ("changes", "nodes", "gpus", "rows", "message"),
    [
        ({}, 0, 8, 100, "--nodes: 0; 1 or more"),
        ({}, 1, 0, 100, "--gpus: 0; 1 or more"),
        ({"runtime.workers": 16}, 1, 8, 100, "runtime.workers: 16 workers need 16 GPUs; the cluster has 8"),
        ({"runtime.workers": 6}, 2, 4, 100, "runtime.workers: 6 workers need 6 GPUs on one node; the cluster has 8"),
        ({"runtime.device": "cpu"}, 1, 8, 100, "runtime.device: cpu; only GPUs have a price"),
        ({}, 1, 8, None, "data: the number of rows, until they are prepared; say it by --rows; without it there is no"),
    ],
)
def test_what_cannot_be_simulated_is_one_line(
    tiny_grid: TinyGrid, changes: dict[str, object], nodes: int, gpus: int, rows: int | None, message: str
) -> None:
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 16}
    for role in ("student", "teacher"):
        path = tiny_grid.folder / role / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | sizes | {"vocab_size": 50}))
    grid = parse_grid(tiny_grid.text(changes))
    store, outer = Store(tiny_grid.folder / "store"), Outer(tiny_grid.folder / "store")
    with pytest.raises(InputError) as error:
        simulated(make_plan(grid, outer), store, outer, H100, nodes, gpus, None, rows)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(("wanted", "points"), [("auto", 4), (6, 6), (1, 1)])
def test_points_of_a_small_model_share_the_only_gpu(tiny_grid: TinyGrid, wanted: int | str, points: int) -> None:
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 16}
    for role in ("student", "teacher"):
        path = tiny_grid.folder / role / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | sizes | {"vocab_size": 50}))
    grid = parse_grid(tiny_grid.text({"runtime.points_per_gpu": wanted, "axes.lr": [1e-5, 2e-5, 3e-5, 4e-5]}))
    store, outer = Store(tiny_grid.folder / "store"), Outer(tiny_grid.folder / "store")
    found, _ = simulated(make_plan(grid, outer), store, outer, H100, 1, 1, None, 1000)
    assert found.points_beside == points
    assert sum(found.busy.values()) + sum(found.idle.values()) == pytest.approx(found.makespan)


def test_only_the_checkpoints_that_a_run_would_score_are_scored(run: Run, tiny_grid: TinyGrid) -> None:
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 16}
    for role in ("student", "teacher"):
        path = tiny_grid.folder / role / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | sizes | {"vocab_size": 50}))
    best, busy = {"score.checkpoints": "best_heldout", "report.checkpoint": "best_heldout"}, []
    for changes in ({}, best):
        _, stdout, _ = run("simulate", tiny_grid(changes), "--gpus", 1, "--rows", 100, "--json")
        busy.append(json.loads(stdout)["busy_h"]["score"])
    assert 0.4 * busy[0] < busy[1] < 0.8 * busy[0]  # the models that are no points are scored in either


def test_advice_names_the_largest_cause_and_none_is_given_where_all_is_well() -> None:
    idle = Hours({BATCH: 30.0, "loading weights": 1.0})
    poor = Outcome(8, 2, makespan=10.0, busy=Hours({"train": 49.0}), idle=idle)
    assert str(advice_for(poor)).endswith("runtime.workers: no more than the smallest batch")
    assert advice_for(Outcome(8, 2, makespan=10.0, busy=Hours({"train": 79.0}), idle=Hours({BATCH: 1.0}))) is None
    slow = Outcome(8, 2, 10.0, 5.0, Hours({"train": 39.0}), Hours(), Hours({"waiting for teach": 35.0}))
    assert "waiting for teach takes 35.0 GPU-hours" in str(advice_for(slow))
