"""The benchmark of a step, as it goes on a GPU, with tiny models in the place of its own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks import train_step, worlds
from benchmarks.train_step import Device, Measured, one_by_one, over, share_of_peak, summarise

TINY = Device("cpu", ("student", 2), ("teacher", 1), 50, torch.bfloat16, 2, (8,), 2, 1)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(worlds.SHAPES, "student", (16, 32, 2, 1, 64, True))
    monkeypatch.setitem(worlds.SHAPES, "teacher", (24, 32, 2, 2, 64, False))
    monkeypatch.setattr(train_step, "GpuMemory", lambda: SimpleNamespace(peak=lambda: 10))


@pytest.mark.slow
def test_every_kind_steps_and_one_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_step, "gkd_loss", None)
    found = one_by_one([*train_step.KINDS, "gkd"], TINY, 2, 8, 3)
    assert tuple(found) == train_step.KINDS
    assert {len(one.seconds) for one in found.values()} == {3}


def test_what_was_not_measured_is_not_said() -> None:
    found = {"sft": Measured([1.0, 2.0, 6.0], 10), "hidden": Measured([3.0], 30)}
    assert over(found, "hidden", "sft") == 1.5
    assert summarise(found, TINY, 2, 8) == {"kd_hidden_over_sft": 1.5}


def test_the_share_of_peak_counts_products_with_weights() -> None:
    """Of every token in the body (forward, and twice backward), of response tokens in the heads."""
    layer = 16 * (16 + 8 + 8 + 16) + 3 * 16 * 32
    body, head, teachers_head = 2 * layer + 5 * 16, 64 * 16, 64 * 24  # five norms
    needed = 6 * body * 16 + 6 * head * 8
    assert share_of_peak("sft", 2.0, TINY, 2, 8) * 2 * train_step.PEAK_FLOPS == pytest.approx(needed)
    needed += 2 * teachers_head * 8
    assert share_of_peak("hidden", 2.0, TINY, 2, 8) * 2 * train_step.PEAK_FLOPS == pytest.approx(needed)
