"""One instruction example, as every recipe returns it and every template reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """What is asked, about which text (may be empty), and the answer to learn."""

    instruction: str
    context: str
    response: str
