"""What a recipe makes of a source row: an instruction example, or a document without a prompt."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """What is asked, about which text (may be empty), and the answer to learn."""

    instruction: str
    context: str
    response: str


@dataclass(frozen=True)
class Document:
    """A text to learn as it is, as in pretraining: no template is applied, and every token but the first is learned."""

    text: str
