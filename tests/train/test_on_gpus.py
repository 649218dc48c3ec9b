"""What training does for a GPU, as far as a CPU can show it: nothing is waited for inside a step, copies are pinned,
and the optimiser's kernel is the device's own, also after a checkpoint of another device.
"""

from __future__ import annotations

import contextlib
import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from kdray.artifacts.rows import Rows
from kdray.data.collate import moved
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder
from kdray.train import optimiser
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
from kdray.train.optimiser import adamw, restore
from tests.tiny import write_model, write_rows
from tests.train.test_loop import SETTINGS


def test_a_micro_batch_reads_no_number_back(tmp_path, monkeypatch):
    """On the `meta` device, which has none to read: a GPU would be waited for. The decoder, transformers' own, is left
    out.
    """
    model, tokenizer = load_folder(write_model(tmp_path / "model", layers=1))
    rows = Rows(write_rows(tmp_path / "rows", tokenizer))
    given = {"signal": None, "vocab_size": len(tokenizer), "ranks": Ranks()}
    loop = Loop(ResponseModel(model), rows, replace(SETTINGS, alpha=0.0), **given)
    loop.model.to("meta")
    loop.device = torch.device("meta")
    embeddings = loop.model.whole.get_input_embeddings()
    monkeypatch.setattr(loop.model, "hidden", lambda ids, mask, positions, *_: embeddings(ids)[positions.unbind(1)])
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)
    for owner, name in ((loop, "_autocast"), (torch, "autocast")):
        monkeypatch.setattr(owner, name, lambda *_, **__: contextlib.nullcontext())
    terms = loop.accumulate(loop.order.batch_at(0), 10, last=True)
    assert (terms.device.type, terms.dtype, terms.shape) == ("meta", torch.float64, (3,))
    assert embeddings.weight.grad is not None


def test_copies_to_a_gpu_are_pinned_and_not_waited_for(monkeypatch):
    called = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: called.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *where, **how: called.append((*where, how)) or self)
    moved(torch.zeros(2), "cuda")
    assert called == ["pinned", ("cuda", {"non_blocking": True})]
    called.clear()
    moved(torch.zeros(2), torch.device("cpu"))
    assert called == [(torch.device("cpu"), {})]


def make(fused):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    made = adamw(model, SETTINGS)
    for group in made.param_groups:
        group["fused"] = fused
    return model, made


def step(model, made, seed):
    model(torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
    made.step()
    made.zero_grad()


def test_weights_on_gpus_alone_are_moved_by_one_kernel(monkeypatch):
    model = nn.Linear(2, 2)
    assert {group["fused"] for group in adamw(model, SETTINGS).param_groups} == {None}
    monkeypatch.setattr(optimiser, "on_gpus", lambda _: True)
    assert {group["fused"] for group in adamw(model, SETTINGS).param_groups} == {True}
    assert {group["fused"] for group in adamw(model, SETTINGS, fused=False).param_groups} == {None}


@pytest.mark.parametrize("before", [None, True])
@pytest.mark.parametrize("after", [None, True])
def test_a_checkpoint_of_another_kind_of_device_does_not_change_the_kernel(before, after):
    straight_model, straight = make(before)
    step(straight_model, straight, 1)
    model, resumed = make(after)
    model.load_state_dict(straight_model.state_dict())
    restore(resumed, copy.deepcopy(straight.state_dict()))
    assert {group["fused"] for group in resumed.param_groups} == {after}
    assert {state["step"].item() for state in resumed.state.values()} == {1.0}
    step(straight_model, straight, 2)
    step(model, resumed, 2)
    for ours, theirs in zip(model.parameters(), straight_model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("fused", "place"), [(True, "meta"), (None, "cpu")])
def test_counters_of_steps_are_where_they_are_read(fused, place):
    """Of weights on `meta`, in a GPU's place: beside them if one kernel reads them, on the CPU if Python does."""
    weight = nn.Parameter(torch.zeros(2, 2, device="meta"))
    made = torch.optim.AdamW([weight])
    made.state[weight] = {"step": torch.tensor(3.0), "exp_avg": torch.zeros_like(weight)}
    optimiser.settle(made, [fused])
    assert made.state[weight]["step"].device.type == place
