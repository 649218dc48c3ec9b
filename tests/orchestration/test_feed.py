"""Who gets which group of a feed: turns are given by Ray, groups by what a process has loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kdray.orchestration import feed
from kdray.orchestration.feed import _Keeper


def run(steps: Callable[[_Keeper], Coroutine[Any, Any, Any]]) -> Any:
    async def within() -> Any:
        keeper = _Keeper()
        for group in ("A1", "B1"):
            await keeper.put(group.encode(), group[0])
        return await steps(keeper)

    return asyncio.run(within())


def test_a_process_gets_a_group_of_its_model_else_the_first_and_a_turn_given_again_the_same() -> None:
    async def steps(keeper: _Keeper) -> list[bytes | None]:
        first = [await keeper.take(0, "B"), await keeper.take(1, "C")]
        return [*first, await keeper.take(0, None), await keeper.take(1, "B")]

    assert run(steps) == [b"B1", b"A1", b"B1", b"A1"]


def test_there_are_as_many_turns_as_groups() -> None:
    async def steps(keeper: _Keeper) -> list[bool]:
        await keeper.put(None)
        return [await keeper.has(turn) for turn in range(3)]

    assert run(steps) == [True, True, False]


def test_what_suits_another_idle_process_is_left_to_it_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are done at once, and the turn for the second's next group comes to the first."""
    monkeypatch.setattr(feed, "PATIENCE", 0.2)

    async def steps(keeper: _Keeper, more: str | None) -> list[bytes | None]:
        for turn, model in enumerate("AB"):
            await keeper.take(turn, model)
            await keeper.done(model)
        await keeper.put(b"B2", "B")
        asked = asyncio.create_task(keeper.take(2, "A"))
        await asyncio.sleep(0.02)
        if more:
            await keeper.put(more.encode(), more[0])
        return [await asked, await keeper.take(3, "B") if more else None]

    assert run(lambda keeper: steps(keeper, "A2")) == [b"A2", b"B2"]
    assert run(lambda keeper: steps(keeper, None)) == [b"B2", None]


def test_who_rests_is_woken_one_by_one_and_all_at_the_end() -> None:
    async def steps(keeper: _Keeper) -> list[Any]:
        await keeper.take(0, None)
        await keeper.take(1, None)
        for _ in range(3):
            await keeper.put(feed.REST)
        asked = [await keeper.take(turn, "A") for turn in (2, 3, 4)]
        asleep = [asyncio.create_task(keeper.sleep(turn)) for turn in (2, 3, 4)]
        seen = [[task.done() for task in asleep]]
        for wake in (keeper.wake(1), keeper.put(None)):
            await asyncio.sleep(0.02)
            await wake
            await asyncio.sleep(0.02)
            seen.append([task.done() for task in asleep])
        await asyncio.wait_for(keeper.sleep(2), 1)  # a turn that is given again, since its process has died
        return [*asked, *seen]

    assert run(steps) == [feed.REST] * 3 + [[False] * 3, [True, False, False], [True] * 3]


def test_nobody_waits_before_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(keeper: _Keeper) -> bytes | None:
        for turn in (0, 1):
            await keeper.take(turn, None)
            await keeper.done(None)  # idle, with nothing loaded: a rest wants nothing either
        await keeper.put(feed.REST)
        return await asyncio.wait_for(keeper.take(2, "A"), 0.2)

    assert run(steps) == feed.REST
