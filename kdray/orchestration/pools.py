"""Who scores what, decided without Ray: how many actors there are, which of the waiting items one gets, and how many.

A run gives it pipelines of Ray Data, `kdray simulate` actors that only let time pass: both deal out work alike.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kdray.orchestration.resources import Resources

PATIENCE = 5.0  # seconds for actors to end
Group = Sequence["Item"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One piece of work, reported by its key; its actor needs so many GPUs, if there are any."""

    key: str
    gpus: int = 1

    @property
    def loads(self) -> object:
        """What an actor has to load for it, if it is much: items of which this is equal are best done by one actor."""
        return None

    @property
    def bound(self) -> object:
        """Neighbours of which this is equal are done by one actor, one after the other; None: it needs no other."""
        return None


class Actors(Protocol):
    """So many actors of so many GPUs each; `groups` are given to them and not done yet, `loaded` is what they have."""

    size: int
    gpus: int

    @property
    def groups(self) -> int: ...

    @property
    def loaded(self) -> Collection[object]: ...

    def put(self, group: Any, /) -> None:
        """Items that one actor does, one after the other."""
        ...

    def finished(self) -> Iterator[tuple[str, str]]:
        """(key, error or "") of every item that has been finished since; does not wait."""
        ...

    def close(self) -> None: ...

    def join(self, seconds: float) -> None: ...


def longest_first(expected: Mapping[str, float]) -> list[str]:
    """Names by what each is expected to take: none that takes long is to start last, while all else is idle."""
    return sorted(expected, key=lambda name: -expected[name])


def in_rows(groups: Sequence[Group]) -> list[Group]:
    """The groups with those of one model in a row, in the order in which models first come."""
    first = {str(group[0].loads): i for i, group in reversed([*enumerate(groups)])}
    return sorted(groups, key=lambda group: first[str(group[0].loads)])


def cut(group: Group, items: int) -> tuple[Group, Group]:
    """At least so many items from the beginning of a group, and the rest; what is bound together stays so."""
    while 0 < items < len(group) and group[items].bound is not None and group[items].bound == group[items - 1].bound:
        items += 1
    return group[:items], group[items:]


def pieces(group: Group) -> int:
    """How many actors a group may be dealt out to."""
    bounds = [item.bound for item in group]
    return sum(i == 0 or bound is None or bound != bounds[i - 1] for i, bound in enumerate(bounds))


class Pools:
    """Actors that stay, and the groups that wait for one; as many as `room` gives units, now.

    `start` starts so many actors with so many GPUs each. An actor gets half of its share of all that waits, never more
    than a group: large pieces at first, so that a model is seldom loaded, and small ones in the end, so that all actors
    end together.
    """

    def __init__(self, start: Callable[[int, int], Actors], resources: Resources, room: Callable[[], int]) -> None:
        self.start, self.resources, self.room = start, resources, room
        self.waiting: dict[int, list[Group]] = {}  # by the GPUs that an actor needs
        self.items, self.pieces = Counter[int](), Counter[int]()  # in them
        self.pipelines: list[Actors] = []

    def put(self, group: Group) -> Iterator[tuple[str, str]]:
        """Take a group; (key, error) of its items if no node of the cluster can hold their model."""
        gpus = max(item.gpus for item in group)
        if self.resources.actors(gpus):
            self.waiting.setdefault(gpus, []).append(group)
            self.items[gpus] += len(group)
            self.pieces[gpus] += pieces(group)
        else:
            yield from ((item.key, too_large(gpus, self.resources)) for item in group)

    def finished(self) -> Iterator[tuple[str, str]]:
        """(key, error or "") of what has been finished; before that, idle actors get something to do."""
        # The largest models first: left for the end, they would hold few GPUs busy while all others are idle.
        for gpus, groups in sorted(self.waiting.items(), reverse=True):
            self._make_room(gpus)
            if groups:
                self._grow(gpus, self.pieces[gpus])
            for pipeline in self.pipelines:
                while groups and pipeline.gpus == gpus and pipeline.groups < pipeline.size:
                    pipeline.put(self.next_group(pipeline))
        for pipeline in self.pipelines:
            yield from pipeline.finished()

    def next_group(self, pipeline: Actors) -> Group:
        """What the next actor does: of a model that it has loaded or, if it has none yet, of one that nobody has."""
        gpus, loaded = pipeline.gpus, pipeline.loaded
        groups, hands = self.waiting[gpus], self.resources.actors(gpus)  # as many as there will be in the end
        taken = [model for other in self.pipelines for model in other.loaded]
        suits = [i for i, group in enumerate(groups) if group[0].loads and group[0].loads in loaded]
        fresh = [i for i, group in enumerate(groups) if group[0].loads not in taken]
        at = next(iter([*fresh, *suits] if len(loaded) < pipeline.size else [*suits, *fresh]), 0)
        share = -(-self.items[gpus] // (2 * hands)) if hands > 1 else len(groups[at])
        group, rest = cut(groups[at], share)
        groups[at : at + 1] = [rest] if rest else []
        self.items[gpus] -= len(group)
        self.pieces[gpus] -= pieces(group)
        return group

    def _make_room(self, gpus: int) -> None:
        """Let actors of another size go that have nothing to do: where groups wait, and smaller ones where an actor
        that has a group may still wait for a node of which they hold a part.
        """
        given = any(pipeline.groups for pipeline in self.pipelines if pipeline.gpus == gpus)
        for pipeline in list(self.pipelines):
            wanted = (self.waiting[gpus] and pipeline.gpus != gpus) or (given and pipeline.gpus < gpus)
            if wanted and not pipeline.groups and not self.waiting.get(pipeline.gpus):
                pipeline.close()
                self.pipelines.remove(pipeline)

    def _grow(self, gpus: int, wanted: int) -> None:
        """More actors where there is something to do for them, and room."""
        idle = sum(pipeline.size - pipeline.groups for pipeline in self.pipelines if pipeline.gpus == gpus)
        taken = sum(pipeline.size * pipeline.gpus for pipeline in self.pipelines)
        size = min(self.resources.actors(gpus, self.room() - taken), wanted - idle)
        if size > 0:
            self.pipelines.append(self.start(size, gpus))

    def close(self) -> None:
        """Let all actors go once they are done with what they have; wait for it, unless it takes long."""
        for pipeline in self.pipelines:
            pipeline.close()
        until = time.monotonic() + PATIENCE
        for pipeline in self.pipelines:
            pipeline.join(max(0.0, until - time.monotonic()))


def too_large(gpus: int, resources: Resources) -> str:
    """Why nothing can be done that needs so many GPUs."""
    return f"the model needs {gpus} GPUs of one node; the largest has {max(resources.units)}"
