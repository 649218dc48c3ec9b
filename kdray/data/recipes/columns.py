"""Any table: say which columns hold the response, the instruction and the context."""

from __future__ import annotations

from collections.abc import Mapping

from kdray.data.example import Example

VERSION = 1
COLUMN_PARAMETERS = ("response", "instruction", "context")


def columns(
    row: Mapping[str, str], *, response: str, instruction: str | None = None, context: str | None = None, ask: str = ""
) -> Example:
    """`ask` is the instruction of every row where no column holds one."""
    return Example(
        (row[instruction] or "").strip() if instruction else ask,
        (row[context] or "").strip() if context else "",
        (row[response] or "").strip(),
    )
