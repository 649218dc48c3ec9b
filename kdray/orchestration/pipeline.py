"""One Ray Data pipeline over items of work, in the order given, by actors that keep what they have loaded.

Items come in groups that stay together (all of one model, say), so that an actor loads a model once. An item that
raises is reported by its key and never takes its neighbours with it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from ray import cloudpickle

from kdray.artifacts.parts import carry_over, parts
from kdray.orchestration.items import Item, Part
from kdray.orchestration.session import Resources
from kdray.orchestration.work import Work
from kdray.store import Attempt

I = TypeVar("I", bound=Item)  # noqa: E741
I_contra = TypeVar("I_contra", bound=Item, contravariant=True)


class Maker(Protocol[I_contra]):
    """Does one item's work: reads and writes the store, returns nothing."""

    def __call__(self, item: I_contra, /) -> None: ...


class _Actor:
    """Holds a maker in a Ray Data actor and feeds it the items of each group."""

    def __init__(self, make: Callable[[], Maker[Any]]) -> None:
        import torch

        torch.set_num_threads(1)
        self.maker = make()

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[str]]]:
        for group in batch["group"]:
            for item in cloudpickle.loads(group):
                try:
                    self.maker(item)
                    error = ""
                except Exception as failure:  # noqa: BLE001 - reported by key; the other items go on
                    error = f"{type(failure).__name__}: {failure}"
                yield {"key": [item.key], "error": [error]}


def run_pipeline(
    groups: list[list[I]], make: Callable[[], Maker[I]], resources: Resources
) -> Iterator[tuple[str, str]]:
    """(key, error or "") of every item, as soon as it is finished.

    Groups that need as many GPUs share a pool of actors.
    """

    for gpus, alike in itertools.groupby(sorted(filter(None, groups), key=_gpus), _gpus):
        yield from _run(list(alike), make, resources, gpus)


def _gpus(group: Sequence[Item]) -> int:
    return max(item.gpus for item in group)


def _run(
    groups: list[list[I]], make: Callable[[], Maker[I]], resources: Resources, gpus: int
) -> Iterator[tuple[str, str]]:
    import ray.data

    if not (places := resources.actors(gpus)):
        reason = f"the model needs {gpus} GPUs of one node; the largest has {max(resources.units)}"
        yield from ((item.key, reason) for group in groups for item in group)
        return
    rows = [{"group": cloudpickle.dumps(group)} for group in groups]  # pyright: ignore[reportPrivateImportUsage]
    kind: dict[str, Any] = {"accelerator_type": resources.accelerator} if resources.accelerator else {}
    actors = ray.data.ActorPoolStrategy(
        size=min(places, len(rows)), max_tasks_in_flight_per_actor=1
    )  # none waits while another is idle
    data = ray.data.from_items(rows, override_num_blocks=len(rows))
    data.context.target_max_block_size = 1  # a block an item: what is finished is known at once
    data.context.execution_options.preserve_order = False
    answers = data.map_batches(
        _Actor,
        fn_constructor_args=(make,),
        batch_size=1,
        compute=actors,
        num_cpus=0 if resources.gpus else 1,
        num_gpus=gpus if resources.gpus else 0,
        **kind,
    )
    for answer in answers.iter_batches(batch_size=None, prefetch_batches=0):
        yield from zip(answer["key"].tolist(), answer["error"].tolist(), strict=True)


def spread(groups: list[list[I]], resources: Resources) -> list[list[I]]:
    """The groups, each dealt out to several where there are fewer than actors, so that none is idle."""
    hands = max(1, resources.actors(max(_gpus(group) for group in groups)) // len(groups)) if groups else 1
    return [group[i::hands] for group in groups for i in range(min(hands, len(group)))]


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
