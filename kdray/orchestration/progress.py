"""What a run tells of its progress, and to whom: whoever starts one decides how that is shown."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class Bar(Protocol):
    """How far one stage is, of a total that was named when it began."""

    def set(self, done: float) -> None: ...

    def advance(self, by: float = 1) -> None: ...


class Progress(Protocol):
    """Takes what a run has to say."""

    def say(self, text: str) -> None:
        """A line, in which parts may be marked as for rich: `[red]failed[/]`."""
        ...

    def bar(self, title: str, total: float, unit: str = "") -> AbstractContextManager[Bar]:
        """The bar of a stage, for as long as the block goes on: of `total` steps, parts or whatever `unit` names."""
        ...
