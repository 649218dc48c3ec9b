"""DialogSum: everyday dialogues with a short summary, as in knkarthick/dialogsum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdray.data.cells import text_in
from kdray.data.example import Example
from kdray.spec import declare

DECLARED = declare.Recipe(version=1, columns=("dialogue", "summary"))


def dialogsum(row: Mapping[str, Any], *, ask: str = "Summarize the dialogue.") -> Example:
    """`ask` is the instruction of every row."""
    return Example(ask, text_in(row, "dialogue").strip(), text_in(row, "summary").strip())
