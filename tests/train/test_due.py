"""When a resume checkpoint is due."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from kdray.train.checkpoints import Due


class Pair:
    """Two ranks in step: both get the sum of what the other said in the same step."""

    def __init__(self) -> None:
        self.said: dict[int, Tensor] = {}

    def of(self, rank: int) -> Any:
        def total(values: Tensor, device: object) -> Tensor:
            self.said[rank] = values
            return torch.stack([*self.said.values()]).sum(0)

        return SimpleNamespace(rank=rank, sum=total)


def due_at(minutes: float, every: int | None, seconds: float, *, steps: int, writing: float = 0.0) -> list[int]:
    """The steps, of `seconds` each, at which a checkpoint is due that takes `writing` seconds."""
    now = [0.0]
    loop: Any = SimpleNamespace(ranks=Pair().of(0), device="cpu", step=0)
    due, found = Due(loop, minutes, every, clock=lambda: now[0]), []
    for loop.step in range(1, steps + 1):
        now[0] += seconds
        if due():
            found.append(loop.step)
            now[0] += writing
            due.written()
    return found


def test_one_is_due_when_minutes_have_passed_since_the_last() -> None:
    assert due_at(10, None, 100, steps=20) == [6, 12, 18]
    assert due_at(10, None, 1000, steps=3) == [1, 2, 3]
    assert due_at(10, None, 0.1, steps=50) == []


def test_or_after_so_many_steps() -> None:
    assert due_at(10, 4, 1, steps=10) == [4, 8]
    assert due_at(10, 4, 400, steps=9) == [2, 4, 6, 8]


def test_writing_is_not_counted_so_that_steps_come_between() -> None:
    assert due_at(1, None, 20, steps=9, writing=500) == [3, 6, 9]


def test_the_clock_of_rank_0_tells_all_ranks() -> None:
    pair, now = Pair(), [0.0, 0.0]
    loops: list[Any] = [SimpleNamespace(ranks=pair.of(rank), device="cpu", step=1) for rank in (0, 1)]
    due = [Due(loop, 1, None, clock=lambda rank=rank: now[rank]) for rank, loop in enumerate(loops)]
    now[:] = [59, 61]
    assert [one() for one in due] == [False, False]
    now[:] = [61, 59]
    assert [one() for one in due] == [True, True]


def test_a_node_that_is_taken_away_is_asked_about_every_few_seconds_and_left_for_good() -> None:
    now, asked, taken = [0.0], [], [False]
    loop: Any = SimpleNamespace(ranks=Pair().of(0), device="cpu", step=1)
    due = Due(loop, 10, None, lambda: asked.append(now[0]) or taken[0], clock=lambda: now[0])
    assert [due() for now[0] in (0.0, 1.0, 2.0, 3.0)] == [False] * 4
    assert asked == [0.0, 2.0]
    taken[0], now[0] = True, 4.0
    assert due()
    assert due.leaving
    taken[0], now[0] = False, 6.0
    assert due()
    assert due.leaving


def test_all_ranks_ask_about_their_nodes_at_the_same_step() -> None:
    """As Ray Train wants it, whose answer waits for all of them."""
    pair, now, asked = Pair(), [0.0, 0.0], [0, 0]

    def ask(rank: int) -> bool:
        asked[rank] += 1
        return False

    loops: list[Any] = [SimpleNamespace(ranks=pair.of(rank), device="cpu", step=1) for rank in (0, 1)]
    due = [
        Due(loop, 10, None, lambda rank=rank: ask(rank), clock=lambda rank=rank: now[rank])
        for rank, loop in enumerate(loops)
    ]
    for now[:] in ([0, 5], [1, 9], [2.5, 9]):
        assert [one() for one in due] == [False, False]
    assert asked == [2, 2]
