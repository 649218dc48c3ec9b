"""Actors that only let time pass, in place of a pipeline of Ray Data."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kdray.orchestration.pools import Group, Hands, Item, at_hand
from kdray.simulate.clock import Clock
from kdray.simulate.machines import Machines, Places
from kdray.simulate.todo import Piece


@dataclass
class _Actor:
    """One, where it is, what it has loaded, and what it does since when; a new `turn` makes its old end void."""

    places: Places | None = None
    model: object = None
    group: Group | None = None
    number: int = 0  # of the group
    loading: float = 0.0
    since: float = 0.0
    turn: int = 0


class TimedActors:
    """As `kdray.orchestration.pipeline.Pipeline`, on a clock. `spent` is told of seconds of so many GPUs, by what
    they went into.
    """

    def __init__(
        self, size: int, gpus: int, clock: Clock, machines: Machines, spent: Callable[[str, float], None]
    ) -> None:
        self.size, self.gpus, self.hands = size, gpus, Hands(size)
        self.clock, self.machines, self.spent = clock, machines, spent
        self.actors = [_Actor() for _ in range(size)]
        self.queue, self.told, self.ended = deque[tuple[int, Group]](), list[str](), list[int]()
        self.closed = False

    @property
    def groups(self) -> int:
        return len(self.hands.busy)

    @property
    def busy(self) -> int:
        """GPUs that do something."""
        return self.gpus * sum(actor.group is not None for actor in self.actors)

    def put(self, group: Group) -> None:
        self.queue.append((self.hands.give(group), group))
        self.go_on()

    def go_on(self) -> None:
        """Idle actors that have a place take what waits."""
        for actor in self.actors:
            if actor.places is None and not self.closed:
                actor.places = self.machines.take(self.gpus)
            if self.queue and actor.places is not None and actor.group is None:
                at = at_hand((group for _, group in self.queue), actor.model)
                number, group = self.queue[at]
                del self.queue[at]
                self._begin(actor, number, group)

    def finished(self) -> Iterator[tuple[str, str]]:
        told, self.told = self.told, []
        for number in self.ended:  # not before it is heard of, as a pipeline has it
            self.hands.take_back(number)
        self.ended.clear()
        yield from ((key, "") for key in told)

    def close(self) -> None:
        self.closed = True
        for actor in self.actors:
            if actor.group is None and actor.places is not None:
                self.machines.give(actor.places)
                actor.places = None

    def join(self, seconds: float) -> None:
        """Nothing to wait for."""

    def lose(self, node: int) -> None:
        """Another actor goes on with what is done on a node: the pieces that are whole are kept."""
        for actor in self.actors:
            if actor.places and node in actor.places:
                self.machines.give(actor.places)
                if actor.group:
                    self._interrupt(actor, actor.group)
                actor.places, actor.model, actor.group, actor.turn = None, None, None, actor.turn + 1

    def _interrupt(self, actor: _Actor, group: Group) -> None:
        worked, kept, seconds = self.clock.now - actor.since - actor.loading, 0, 0.0
        while kept < len(group) - 1 and seconds + _seconds(group[kept]) <= worked:
            seconds += _seconds(group[kept])
            kept += 1
        self.told += [item.key for item in group[:kept]]
        self.queue.appendleft((actor.number, group[kept:]))
        self.spent("score", self.gpus * seconds)
        self.spent("redone", self.gpus * (self.clock.now - actor.since - seconds))

    def _begin(self, actor: _Actor, number: int, group: Group) -> None:
        first = _piece(group[0])
        actor.loading = 0.0 if first.model == actor.model else first.loading
        actor.model, actor.group, actor.since, actor.turn = first.model, group, self.clock.now, actor.turn + 1
        actor.number = number
        turn = actor.turn
        self.clock.after(actor.loading + sum(map(_seconds, group)), lambda: self._end(actor, turn))

    def _end(self, actor: _Actor, turn: int) -> None:
        if actor.turn != turn or actor.group is None:
            return
        seconds = self.clock.now - actor.since
        self.spent("loading", self.gpus * actor.loading)
        self.spent("score", self.gpus * (seconds - actor.loading))
        self.told += [item.key for item in actor.group]
        self.ended.append(actor.number)
        actor.group = None


def _piece(item: Item) -> Piece:
    assert isinstance(item, Piece)
    return item


def _seconds(item: Item) -> float:
    return _piece(item).seconds
