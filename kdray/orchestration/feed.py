"""Groups of items that a Ray Data pipeline reads while others are still to come.

A pipeline's only read task gives a turn for each group, by number, and waits where there is none yet. Whoever has one
asks an actor for the group that suits it best. That actor keeps what it has given out: a turn that Ray gives again, to
another process or on another node, is of the same group.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import ray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

REST = b""  # in place of a group
PATIENCE = 1.0  # seconds, some looks of the driver's at who is idle


class Feed:
    """The driver's side: groups go in, pickled, until it is closed."""

    def __init__(self) -> None:
        # Where the driver is: a keeper on a node that is lost would take with it what is still to be done.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.keeper: Any = ray.remote(_Keeper).options(num_cpus=0, scheduling_strategy=here).remote()

    def put(self, group: bytes, model: object) -> None:
        """A group for which `model` has to be loaded."""
        self.keeper.put.remote(group, model)

    def take(self, turn: int, model: object) -> bytes:
        """The group of a turn, for a process that has loaded `model`: one of that model, if there is one."""
        return ray.get(self.keeper.take.remote(turn, model))

    def done(self, model: object) -> None:
        """A process that has loaded `model` has nothing to do."""
        self.keeper.done.remote(model)

    def rest(self, processes: int) -> None:
        """So many processes that have nothing to do are to sleep."""
        for _ in range(processes):
            self.keeper.put.remote(REST)

    def sleep(self, turn: int) -> None:
        """What a process does whose turn it is to rest: it returns when it is woken."""
        ray.get(self.keeper.sleep.remote(turn))

    def wake(self, processes: int) -> None:
        """So many of those that sleep are to go on."""
        self.keeper.wake.remote(processes)

    def close(self) -> None:
        """No group comes after those that are there, and nobody sleeps."""
        self.keeper.put.remote(None)

    def read(self) -> ray.data.Dataset:
        """A data set with a row `turn` for each group, as soon as it is there."""
        # A block a turn, so that none waits for the next; the reader takes no core from those who work.
        data = ray.data.read_datasource(_Source(self.keeper), override_num_blocks=1, num_cpus=0)
        data.context.target_max_block_size = 1
        return data


class _Keeper:
    def __init__(self) -> None:
        self.groups: list[tuple[bytes | None, object]] = []
        self.taken: dict[int, int] = {}  # by the turn
        self.idle: list[object] = []  # models of processes that have nothing to do
        self.sleeping: dict[int, int] = {}  # by the turn: how many slept before
        self.woken = 0.0
        self.grown = asyncio.Condition()

    async def put(self, group: bytes | None, model: object = None) -> None:
        async with self.grown:
            self.groups.append((group, model))
            self.woken = math.inf if group is None else self.woken
            self.grown.notify_all()

    async def sleep(self, turn: int) -> None:
        """Until as many have been woken as slept before, and one more."""
        before = self.sleeping.setdefault(turn, len(self.sleeping))
        async with self.grown:
            await self.grown.wait_for(lambda: self.woken > before)

    async def wake(self, processes: int) -> None:
        async with self.grown:
            self.woken += processes
            self.grown.notify_all()

    async def has(self, turn: int) -> bool:
        """Whether there is such a turn, as soon as that is known."""
        async with self.grown:
            await self.grown.wait_for(lambda: len(self.groups) > turn)
            return self.groups[turn][0] is not None

    async def take(self, turn: int, model: object) -> bytes | None:
        """Where all that there is suits another process, which is idle too, a group of `model` is soon to come."""

        def suits() -> list[int]:
            return [i for i in self._left() if model is not None and self.groups[i][1] == model]

        async with self.grown:
            if turn not in self.taken:
                if model in self.idle:
                    self.idle.remove(model)
                wanted = self.groups[self._left()[0]][1]
                if not suits() and None not in (model, wanted) and wanted in self.idle:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self.grown.wait_for(suits), PATIENCE)
                self.taken[turn] = [*suits(), *self._left()][0]
            return self.groups[self.taken[turn]][0]

    async def done(self, model: object) -> None:
        self.idle.append(model)

    def _left(self) -> list[int]:
        taken = {*self.taken.values()}
        return [i for i, (group, _) in enumerate(self.groups) if group is not None and i not in taken]


class _Source(Datasource):
    def __init__(self, keeper: Any) -> None:
        self.keeper = keeper

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        nobody_knows = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(_reader(self.keeper), nobody_knows)]


def _reader(keeper: Any) -> Callable[[], Iterator[pa.Table]]:
    def read() -> Iterator[pa.Table]:
        turn = 0
        while ray.get(keeper.has.remote(turn)):
            yield pa.table({"turn": pa.array([turn], pa.int64())})
            turn += 1

    return read
