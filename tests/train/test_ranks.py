"""Two processes that share every batch train as one does, whatever the batch: 1 and 3 leave a rank spare."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from kdray.data.rows import Rows
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
from tests.tiny import write_model, write_rows
from tests.train.test_loop import SETTINGS, Online

pytestmark = pytest.mark.slow
CASES = [(1, True), (3, True), (3, False), (4, True)]  # sequences in a step, packing


def train(folder, batch, packing, ranks, micro_batch=None):
    """Weights, curve and held-out loss after a few steps."""
    torch.set_num_threads(1)
    model, tokenizer = load_folder(folder / "student")
    rows = Rows(folder / "rows")
    teacher = Online(load_folder(folder / "teacher")[0], rows)
    settings = replace(SETTINGS, batch=batch, packing=packing, length=5.0)
    loop = Loop(
        ResponseModel(model), rows, settings, signal=teacher, vocab_size=len(tokenizer), ranks=ranks, micro_batch=micro_batch
    )
    curve = [metrics["loss"] for metrics in loop.steps()]
    return {"curve": curve, "heldout": loop.heldout(3), "weights": dict(model.state_dict())}


def rank_process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for batch, packing in CASES:
        result = train(folder, batch, packing, Ranks(rank, 2), micro_batch=1)
        torch.save(result, folder / f"batch{batch}-{packing}-rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    write_model(folder / "student", layers=2, seed=2)
    write_model(folder / "teacher", layers=2, seed=1)
    write_rows(folder / "rows", load_folder(folder / "student")[1], heldout=5)
    torch.multiprocessing.spawn(rank_process, (folder,), nprocs=2)
    return folder


@pytest.mark.parametrize(("batch", "packing"), CASES)
def test_two_ranks_equal_one(folder, batch, packing):
    alone = train(folder, batch, packing, Ranks())
    first, second = (torch.load(folder / f"batch{batch}-{packing}-rank{rank}.pt") for rank in (0, 1))
    assert first["curve"] == second["curve"]
    assert first["curve"] == pytest.approx(alone["curve"], rel=1e-5)
    assert first["heldout"] == pytest.approx(alone["heldout"], rel=1e-5)
    for name, weight in alone["weights"].items():
        assert torch.equal(first["weights"][name], second["weights"][name]), name
        assert (first["weights"][name] - weight).abs().max() < 2e-5, name
