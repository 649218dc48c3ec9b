"""Groups of items that a Ray Data pipeline reads while others are still to come.

A pipeline's only read task asks an actor for one group after the other, by number, and waits where there is none yet.
The actor keeps what it has given out: a read task that Ray starts again, on another node, reads the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import ray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class Feed:
    """The driver's side: groups go in, pickled, until it is closed."""

    def __init__(self) -> None:
        # Where the driver is: a keeper on a node that is lost would take with it what is still to be done.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.keeper: Any = ray.remote(_Keeper).options(num_cpus=0, scheduling_strategy=here).remote()

    def put(self, group: bytes) -> None:
        self.keeper.put.remote(group)

    def close(self) -> None:
        """No group comes after those that are there."""
        self.keeper.put.remote(None)

    def read(self) -> ray.data.Dataset:
        """A data set with a row `group` for each, as soon as it is there."""
        # A block a group, so that none waits for the next; the reader takes no core from those who work.
        data = ray.data.read_datasource(_Source(self.keeper), override_num_blocks=1, num_cpus=0)
        data.context.target_max_block_size = 1
        return data


class _Keeper:
    def __init__(self) -> None:
        self.groups: list[bytes | None] = []
        self.grown = asyncio.Condition()

    async def put(self, group: bytes | None) -> None:
        async with self.grown:
            self.groups.append(group)
            self.grown.notify_all()

    async def get(self, number: int) -> bytes | None:
        async with self.grown:
            await self.grown.wait_for(lambda: len(self.groups) > number)
            return self.groups[number]


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
        number = 0
        while (group := ray.get(keeper.get.remote(number))) is not None:
            yield pa.table({"group": pa.array([group], pa.binary())})
            number += 1

    return read
