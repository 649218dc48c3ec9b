"""A core of this machine as a card."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kdray.models import core
from kdray.models.core import MOVED, TRAINED, measured


def test_rates_are_operations_and_bytes_of_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: Iterator[float] = iter([2.0, 3.0, 5.0])  # of passes in float32, in bfloat16, of steps of AdamW
    monkeypatch.setattr(core, "_rate", lambda _: next(rates))
    card = measured()
    counted = FlopCounterMode(display=False)
    with counted:
        core._Layer(torch.float32).work()
    assert card.products == pytest.approx(3 * counted.get_total_flops(), rel=0.1)  # which counts what a mask leaves out
    assert (card.times(4), card.times(2), card.unit) == (1.5, 1.0, "core")
    assert card.bandwidth == 5 * MOVED * TRAINED


@pytest.mark.slow
def test_all_cores_work_at_once_on_one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "LONG", 0.01)
    monkeypatch.setattr(core, "cores", lambda: 3)
    before, made, seen = torch.get_num_threads(), 0, set[int]()

    def make() -> Callable[[], None]:
        nonlocal made
        made += 1
        step = core._optimiser()
        return lambda: (seen.add(torch.get_num_threads()), step())[1]

    assert core._rate(make) > 0
    assert (made, seen, torch.get_num_threads()) == (3, {1}, before)
