"""A core of this machine as a card."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kdray.models import core
from kdray.models.core import MOVED, TRAINED, measured


def test_rates_are_operations_and_bytes_of_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: Iterator[float] = iter([2.0, 3.0, 5.0])  # of passes in float32, in bfloat16, of steps of AdamW
    monkeypatch.setattr(core, "_rate", lambda _: next(rates))
    monkeypatch.setattr(core, "_start", {"kdray.x": 7.0}.__getitem__)
    card = measured("kdray.x")
    counted = FlopCounterMode(display=False)
    with counted:
        core._Layer(torch.float32).work()
    assert card.products == pytest.approx(3 * counted.get_total_flops(), rel=0.1)  # which counts what a mask leaves out
    assert (card.times(4), card.times(2), card.unit) == (1.5, 1.0, "core")
    assert card.bandwidth == 5 * MOVED * TRAINED
    assert card.start == 7


def test_a_start_is_the_processors_time_of_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sleeps.py").write_text("import time\ntime.sleep(0.3)\n")
    (tmp_path / "works.py").write_text("import time\nwhile time.process_time() < 0.3:\n    pass\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert core._start("sleeps") < 0.3 <= core._start("works")
    with pytest.raises(subprocess.CalledProcessError):
        core._start("nowhere")


def test_a_rate_is_by_the_threads_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "LONG", 0.02)
    ends = iter(range(10**9))

    def work() -> None:
        if next(ends) % 2:
            time.sleep(0.01)
        until = time.thread_time() + 0.005
        while time.thread_time() < until:
            pass

    assert core._timed(work) == pytest.approx(1 / 0.005, rel=0.2)


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
