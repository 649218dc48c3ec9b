"""One Ray Data pipeline over items of work, in the order given, by actors that keep what they have loaded.

Items come in groups that stay together (all of one model, say), so that an actor loads a model once. An item that
raises is reported by its key and never takes its neighbours with it.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, Protocol, TypeVar

import ray.data
from ray import cloudpickle

from kdray.artifacts.parts import carry_over, parts
from kdray.orchestration.feed import Feed
from kdray.orchestration.items import Part
from kdray.orchestration.pools import Hands, Item, too_large
from kdray.orchestration.session import Resources
from kdray.orchestration.work import Work
from kdray.store import Attempt

GROUP_DONE = ""  # in place of a key, with the group's number: what an actor says after the items of a group
I = TypeVar("I", bound=Item)  # noqa: E741
I_contra = TypeVar("I_contra", bound=Item, contravariant=True)


class Maker(Protocol[I_contra]):
    """Does one item's work: reads and writes the store, returns nothing."""

    def __call__(self, item: I_contra, /) -> None: ...


class _Actor:
    """Holds a maker in a Ray Data actor and feeds it the items of each group: of those that `feed` has the one that
    suits it best.
    """

    def __init__(self, make: Callable[[], Maker[Any]], feed: Feed | None) -> None:
        import torch

        torch.set_num_threads(1)
        self.maker, self.feed = make(), feed
        self.model: object = None  # that it has loaded

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[str]]]:
        for row in batch["group"]:
            number, group = cloudpickle.loads(self.feed.take(int(row), self.model) if self.feed else row)
            self.model = group[0].loads or self.model
            for item in group:
                try:
                    self.maker(item)
                    error = ""
                except Exception as failure:  # noqa: BLE001 - reported by key; the other items go on
                    error = f"{type(failure).__name__}: {failure}"
                yield {"key": [item.key], "error": [error]}
            if self.feed:
                self.feed.done(self.model)
            yield {"key": [GROUP_DONE], "error": [str(number)]}


def run_pipeline(
    groups: list[list[I]], make: Callable[[], Maker[I]], resources: Resources
) -> Iterator[tuple[str, str]]:
    """(key, error or "") of every item, as soon as it is finished.

    Groups that need as many GPUs share a pool of actors.
    """

    for gpus, alike in itertools.groupby(sorted(filter(None, groups), key=_gpus), _gpus):
        yield from _run(list(alike), make, resources, gpus)


class Pipeline(Generic[I]):
    """A pipeline that is fed while it runs: `size` actors with `gpus` GPUs each, until it is closed.

    Without GPUs they share the cores with whatever else runs: none is idle for being kept free, and none waits.
    """

    def __init__(self, make: Callable[[], Maker[I]], resources: Resources, size: int, gpus: int) -> None:
        self.size, self.gpus, self.hands = size, gpus, Hands(size)
        self._feed, self._told = Feed(), queue.SimpleQueue[tuple[str, str] | Exception]()
        answers = _through(self._feed.read(), make, resources, size, gpus, self._feed)
        self._thread = threading.Thread(target=self._listen, args=[answers], name="kdray-pipeline", daemon=True)
        self._thread.start()

    @property
    def groups(self) -> int:
        """Those that are not done yet."""
        return len(self.hands.busy)

    def put(self, group: Sequence[I]) -> None:
        """Items that one actor does, one after the other."""
        self._feed.put(_pickled(self.hands.give(group), group), group[0].loads)

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
                if told[0] == GROUP_DONE:
                    self.hands.take_back(int(told[1]))
                else:
                    yield told

    def close(self) -> None:
        """Let the actors go once all is done."""
        self._feed.close()

    def join(self, seconds: float) -> None:
        """Wait for that, for so long at most."""
        self._thread.join(seconds)

    def _listen(self, answers: ray.data.Dataset) -> None:
        try:
            for answer in _finished(answers):
                self._told.put(answer)
        except Exception as failure:  # noqa: BLE001 - raised where the driver listens
            self._told.put(failure)


def _pickled(number: int, group: Sequence[Item]) -> bytes:
    return cloudpickle.dumps((number, list(group)))  # pyright: ignore[reportPrivateImportUsage]


def _gpus(group: Sequence[Item]) -> int:
    return max(item.gpus for item in group)


def _run(
    groups: list[list[I]], make: Callable[[], Maker[I]], resources: Resources, gpus: int
) -> Iterator[tuple[str, str]]:
    if not (places := resources.actors(gpus)):
        reason = too_large(gpus, resources)
        yield from ((item.key, reason) for group in groups for item in group)
        return
    rows = [{"group": _pickled(number, group)} for number, group in enumerate(groups)]
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    answers = _finished(_through(data, make, resources, min(places, len(rows)), gpus))
    yield from (answer for answer in answers if answer[0] != GROUP_DONE)


def _through(
    groups: ray.data.Dataset,
    make: Callable[[], Maker[Any]],
    resources: Resources,
    size: int,
    gpus: int,
    feed: Feed | None = None,
) -> ray.data.Dataset:
    """What `size` actors say of the items of `groups`; those of a `feed` are beside others on the same cores, if they
    need no GPU.
    """
    kind: dict[str, Any] = {"accelerator_type": resources.accelerator} if resources.accelerator else {}
    groups.context.target_max_block_size = 1  # a block an item: what is finished is known at once
    groups.context.execution_options.preserve_order = False
    return groups.map_batches(
        _Actor,
        fn_constructor_args=(make, feed),
        batch_size=1,
        # none waits while another is idle
        compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
        num_cpus=0 if resources.gpus or feed else 1,
        num_gpus=resources.asked(gpus) if resources.gpus else 0,
        **kind,
    )


def _finished(answers: ray.data.Dataset) -> Iterator[tuple[str, str]]:
    for answer in answers.iter_batches(batch_size=None, prefetch_batches=0):
        yield from zip(answer["key"].tolist(), answer["error"].tolist(), strict=True)


def make_parts(
    title: str,
    cuts: Sequence[Sequence[int]],
    attempt: Attempt,
    make: Callable[[], Maker[Part]],
    work: Work,
    gpus: int = 1,
    instead: Callable[[list[Part]], Iterator[tuple[str, str]]] | None = None,
) -> str | None:
    """Make the parts of an attempt that no earlier one left, one for each of `cuts`; returns why that failed, None if
    not.

    `gpus` is how many an actor needs; `instead` does what makers would.
    """
    present, errors = carry_over(attempt), []
    items = [
        Part(key=str(i), gpus=gpus, target=attempt.path, index=i, rows=cut)
        for i, cut in enumerate(cuts)
        if i not in present
    ]
    with work.progress.bar(title, len(cuts), "parts") as bar:
        bar.set(len(present))
        for _, error in instead(items) if instead else run_pipeline([[item] for item in items], make, work.resources):
            errors += [error] if error else []
            bar.advance()
    if errors or len(parts(attempt.path)) != len(cuts):
        return errors[0] if errors else "parts are missing"
    return None
