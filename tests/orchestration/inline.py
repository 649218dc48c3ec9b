"""Actors that do their items in this process, when they are asked what is finished."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kdray.orchestration.pools import Hands, Item


class InlineSeats:
    """As `kdray.orchestration.crew.Seats`; all that were made are in `made`."""

    made: list[InlineSeats] = []  # noqa: RUF012

    def __init__(self, make: Callable[[], Any], _: object, size: int, gpus: int) -> None:
        self.maker, self.size, self.gpus, self.closed, self.waited = make(), size, gpus, False, 0.0
        self.waiting, self.hands = list[tuple[int, Sequence[Item]]](), Hands(size)
        self.made.append(self)

    @property
    def groups(self) -> int:
        return len(self.waiting)

    def put(self, group: Sequence[Item]) -> None:
        self.waiting.append((self.hands.give(group), group))

    def finished(self) -> Iterator[tuple[str, str]]:
        for number, group in self.waiting:
            self.hands.take_back(number)
            for item in group:
                try:
                    self.maker(item)
                except Exception as failure:  # noqa: BLE001
                    yield item.key, f"{type(failure).__name__}: {failure}"
                else:
                    yield item.key, ""
        self.waiting.clear()

    def close(self) -> None:
        self.closed = True

    def join(self, seconds: float) -> None:
        assert self.closed
        self.waited = seconds


def start_inline(_: object, *how: Any) -> InlineSeats:
    """In place of `kdray.orchestration.crew.Crew.start`."""
    return InlineSeats(*how)
