"""The actors of a run: a Ray Data pipeline feeds them groups of items, each to be done by a maker that it brings along.

Items come in groups that stay together (all of one model, say), so that an actor loads a model once. An item that
raises is reported by its key and never takes its neighbours with it.

Without GPUs actors stay for whoever wants some next: to start one takes longer than much of what a small run gives it
to do. In between they rest, with nothing loaded. Actors with GPUs go at once: points want these.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import ray.data
from ray import cloudpickle
from ray.data._internal.execution.execution_callback import ExecutionCallback

from kdray.orchestration.feed import Feed
from kdray.orchestration.pools import Hands, Item
from kdray.orchestration.resources import Resources
from kdray.orchestration.session import LISTENS, leaving

FEW = 2  # actors that are started before anybody knows how many it takes
GROUP_DONE = ""  # in place of a key: what an actor says after the items of a group
I = TypeVar("I", bound=Item)  # noqa: E741
I_contra = TypeVar("I_contra", bound=Item, contravariant=True)
Told = queue.SimpleQueue[tuple[str, str] | int | Exception]  # (key, error), a group that is done, or what went wrong


class Maker(Protocol[I_contra]):
    """Does one item's work: reads and writes the store, returns nothing."""

    def __call__(self, item: I_contra, /) -> None: ...


class Crew:
    """All actors of a run."""

    def __init__(self) -> None:
        self._pipelines: list[_Pipeline] = []

    def start(self, make: Callable[[], Maker[I]], resources: Resources, size: int, gpus: int) -> Seats[I]:
        """`size` actors with `gpus` GPUs each, and what `make` makes in each of them.

        Without GPUs they share the cores with whatever else runs: none is idle for being kept free, and none waits.
        """
        self._pipelines = [pipeline for pipeline in self._pipelines if pipeline.is_alive]
        pipeline = next((pipeline for pipeline in self._pipelines if pipeline.resting >= size), None)
        if pipeline:
            pipeline.wake(size)
        else:
            self._close_resting()
            pipeline = _Pipeline(resources, size, gpus)
            self._pipelines += [] if resources.gpus else [pipeline]
        return Seats(pipeline, make, size, gpus)

    def begin(self, resources: Resources) -> None:
        """Start a few actors that rest, while there is nothing to do yet that takes all cores."""
        if not resources.gpus:
            size = min(FEW, resources.actors())
            self._pipelines.append(_Pipeline(resources, size, 1))
            self._pipelines[-1].rest(size)

    def _close_resting(self) -> None:
        """Let actors go of which none has anything to do."""
        for pipeline in list(self._pipelines):
            if pipeline.resting == pipeline.size:
                pipeline.close()
                self._pipelines.remove(pipeline)


class Seats(Generic[I]):
    """Actors that do what one maker does, until they are closed."""

    def __init__(self, pipeline: _Pipeline, make: Callable[[], Maker[I]], size: int, gpus: int) -> None:
        self.size, self.gpus, self.hands = size, gpus, Hands(size)
        self._pipeline, self._make, self._told = pipeline, _pickled(make), Told()

    @property
    def groups(self) -> int:
        """Those that are not done yet."""
        return len(self.hands.busy)

    def put(self, group: Sequence[I]) -> None:
        """Items that one actor does, one after the other."""
        self._pipeline.put(self._make, group, self._told, self.hands.give(group))

    def finished(self) -> Iterator[tuple[str, str]]:
        """(key, error or "") of every item that has been finished since; does not wait.

        Raises:
            Exception: the pipeline itself broke down.
        """
        with contextlib.suppress(queue.Empty):
            while True:
                told = self._told.get_nowait()
                if isinstance(told, Exception):
                    raise told
                if isinstance(told, int):
                    self.hands.take_back(told)
                else:
                    yield told

    def close(self) -> None:
        """Let the actors rest or, if they have GPUs, go, once all is done."""
        if self._pipeline.has_gpus:
            self._pipeline.close()
        else:
            self._pipeline.rest(self.size)

    def join(self, seconds: float) -> None:
        """Wait for actors that go, for so long at most."""
        if self._pipeline.has_gpus:
            self._pipeline.thread.join(seconds)


class _Pipeline:
    """A pipeline of Ray Data that is fed while it runs."""

    def __init__(self, resources: Resources, size: int, gpus: int) -> None:
        self.size, self.resting, self.has_gpus = size, 0, resources.gpus > 0
        self._feed, self._waiting = Feed(), dict[int, tuple[Told, int]]()
        self._count, self._failure = 0, list[Exception]()
        kind: dict[str, Any] = {"accelerator_type": resources.accelerator} if resources.accelerator else {}
        turns = self._feed.read()
        turns.context.target_max_block_size = 1  # a block an item: what is finished is known at once
        turns.context.execution_options.preserve_order = False
        turns.context.custom_execution_callback_classes = [_Leaving]
        answers = turns.map_batches(
            _Actor,
            fn_constructor_args=(self._feed,),
            batch_size=1,
            # none waits while another is idle
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
            num_cpus=0,
            num_gpus=resources.asked(gpus) if self.has_gpus else 0,
            **kind,
        )
        self.thread = threading.Thread(target=self._listen, args=[answers], name=LISTENS, daemon=True)
        self.thread.start()

    @property
    def is_alive(self) -> bool:
        return not self._failure

    def put(self, make: bytes, group: Sequence[Item], told: Told, number: int) -> None:
        """A group that is `number` to whom all is `told` about it."""
        self._waiting[self._count] = told, number
        self._feed.put(_pickled((self._count, make, list(group))), group[0].loads)
        self._count += 1
        for failure in self._failure:
            told.put(failure)

    def rest(self, actors: int) -> None:
        """So many have nothing to do until they are woken."""
        self.resting += actors
        self._feed.rest(actors)

    def wake(self, actors: int) -> None:
        self.resting -= actors
        self._feed.wake(actors)

    def close(self) -> None:
        """Let the actors go once all is done."""
        self._feed.close()

    def _listen(self, answers: ray.data.Dataset) -> None:
        try:
            for answer in answers.iter_batches(batch_size=None, prefetch_batches=0):
                for group, key, error in zip(*(answer[name].tolist() for name in _Actor.TELLS), strict=True):
                    told, number = self._waiting[group]
                    told.put(number if key == GROUP_DONE else (key, error))
                    if key == GROUP_DONE:
                        del self._waiting[group]
        except Exception as failure:  # noqa: BLE001 - raised where the driver listens
            self._failure.append(failure)
            for told, _ in list(self._waiting.values()):
                told.put(failure)


class _Leaving(ExecutionCallback):
    """Ends a pipeline with its session, whatever its actors do."""

    def on_execution_step(self, executor: object) -> None:
        if leaving.is_set():
            raise RuntimeError("the session ends")


class _Actor:
    """Keeps the maker that it had last, and of the groups that `feed` has takes the one that suits it best."""

    TELLS = ("group", "key", "error")

    def __init__(self, feed: Feed) -> None:
        import torch

        torch.set_num_threads(1)
        self.feed = feed
        self._let_go()

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        for turn in map(int, batch["turn"]):
            if taken := self.feed.take(turn, self.model):
                yield from self._do(*cloudpickle.loads(taken))
            else:
                self._let_go()
                self.feed.sleep(turn)
                self.feed.done(None)

    def _do(self, number: int, make: bytes, group: Sequence[Item]) -> Iterator[dict[str, list[Any]]]:
        for item in group:
            try:
                if make != self.made_by:
                    self._let_go()  # before the next one loads what is its own
                    self.maker, self.made_by = cloudpickle.loads(make)(), make
                self.model = item.loads or self.model
                self.maker(item)
                error = ""
            except Exception as failure:  # noqa: BLE001 - reported by key; the other items go on
                error = f"{type(failure).__name__}: {failure}"
            yield dict(zip(self.TELLS, ([number], [item.key], [error]), strict=True))
        self.feed.done(self.model)
        yield dict(zip(self.TELLS, ([number], [GROUP_DONE], [""]), strict=True))

    def _let_go(self) -> None:
        self.maker: Maker[Any] = _nothing
        self.made_by: bytes = b""
        self.model: object = None  # that it has loaded


def _nothing(item: Item) -> None:
    raise AssertionError(item)


def _pickled(what: object) -> bytes:
    return cloudpickle.dumps(what)  # pyright: ignore[reportPrivateImportUsage]
