"""Who scores what, decided without Ray: how many actors there are, which of the waiting items one gets, and how many.

A run gives it pipelines of Ray Data, `kdray simulate` actors that only let time pass: both deal out work alike.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from kdray.orchestration.resources import Resources

PATIENCE = 5.0  # seconds for actors to end
Group = Sequence["Item"]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One piece of work, reported by its key; its actor needs so many GPUs, if there are any, or parts of one while
    points share them.
    """

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


@dataclass
class Hands:
    """What `size` actors have: of what the groups at work are, by their numbers, and what idle actors have loaded."""

    size: int
    busy: dict[int, object] = field(default_factory=dict)
    idle: list[object] = field(default_factory=list)
    count: int = 0  # groups so far

    @property
    def loaded(self) -> Collection[object]:
        return [*self.busy.values(), *self.idle]

    def give(self, group: Group) -> int:
        """The number of a group that an idle actor takes: one that has loaded its model or else one that has none."""
        model, number = group[0].loads, self.count
        if model in self.idle:
            self.idle.remove(model)
        elif len(self.loaded) >= self.size and self.idle:
            left = self.idle.pop(0)
            model = model or left
        self.busy[number], self.count = model, number + 1
        return number

    def take_back(self, number: int) -> None:
        """A group is done; its actor keeps what it has loaded."""
        self.idle.append(self.busy.pop(number))


class Actors(Protocol):
    """So many actors of so many GPUs each; `groups` are given to them and not done yet."""

    size: int
    gpus: int
    hands: Hands

    @property
    def groups(self) -> int: ...

    def put(self, group: Any, /) -> None:
        """Items that one actor does, one after the other."""
        ...

    def finished(self) -> Iterator[tuple[str, str]]:
        """(key, error or "") of every item that has been finished since; does not wait."""
        ...

    def close(self) -> None: ...

    def join(self, seconds: float) -> None: ...


def longest_first(expected: Mapping[str, float], ranks: Mapping[str, int] = MappingProxyType({})) -> list[str]:
    """Names by their ranks, the least first (0 where none is given), and of equal rank by what each is expected to
    take: none that takes long is to start last, while all else is idle.
    """
    return sorted(expected, key=lambda name: (ranks.get(name, 0), -expected[name]))


def deal_out(engines: int, models: int) -> list[int]:
    """How many engines each of the models may have, where so many models at once as there are engines are answered:
    one, or of the last, which are fewer than engines, their share of all.
    """
    last = models % engines
    each, more = divmod(engines, last) if last else (0, 0)
    return [1] * (models - last) + [each + (i < more) for i in range(last)]


def in_rows(groups: Sequence[Group]) -> list[Group]:
    """The groups with those of one model in a row, in the order in which models first come."""
    first = {str(group[0].loads): i for i, group in reversed([*enumerate(groups)])}
    return sorted(groups, key=lambda group: first[str(group[0].loads)])


def at_hand(groups: Iterable[Group], model: object) -> int:
    """Which of the groups an actor takes that has loaded `model`: the first of it, or the first."""
    return next((i for i, group in enumerate(groups) if group[0].loads and group[0].loads == model), 0)


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
        """(key, error or "") of what has been finished; before that, idle actors get something to do, or go."""
        self._let_go()
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
        """What the next actor does: of a model that an idle one has loaded or, if one has none yet, of one that nobody
        has.
        """
        gpus, idle = pipeline.gpus, pipeline.hands.idle
        groups, hands = self.waiting[gpus], self.resources.actors(gpus)  # as many as there will be in the end
        taken = [model for other in self.pipelines for model in other.hands.loaded]
        suits = [i for i, group in enumerate(groups) if group[0].loads and group[0].loads in idle]
        fresh = [i for i, group in enumerate(groups) if group[0].loads not in taken]
        begins = len(pipeline.hands.loaded) < pipeline.size
        at = next(iter([*fresh, *suits] if begins else [*suits, *fresh]), 0)
        share = -(-self.items[gpus] // (2 * hands)) if hands > 1 else len(groups[at])
        group, rest = cut(groups[at], share)
        groups[at : at + 1] = [rest] if rest else []
        self.items[gpus] -= len(group)
        self.pieces[gpus] -= pieces(group)
        return group

    def _let_go(self) -> None:
        """Let actors go that have nothing to do where all take more than there is room for: points train again that
        have waited for answers.
        """
        if not (idle := [pipeline for pipeline in self.pipelines if not pipeline.groups]):
            return
        over = sum(pipeline.size * pipeline.gpus for pipeline in self.pipelines) - self.room()
        for pipeline in idle:
            if over > 0:
                pipeline.close()
                self.pipelines.remove(pipeline)
                over -= pipeline.size * pipeline.gpus

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

    def close(self, patience: float = PATIENCE) -> None:
        """Let all actors go once they are done with what they have, and wait so many seconds for it."""
        for pipeline in self.pipelines:
            pipeline.close()
        until = time.monotonic() + patience
        for pipeline in self.pipelines:
            pipeline.join(max(0.0, until - time.monotonic()))


def too_large(gpus: int, resources: Resources) -> str:
    """Why nothing can be done that needs so many GPUs."""
    have = max(resources.units) // resources.per_gpu
    return f"the model needs {gpus // resources.per_gpu} GPUs of one node; the largest has {have}"
