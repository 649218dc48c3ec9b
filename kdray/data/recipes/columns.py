"""Any table: say which columns hold the response, the instruction and the context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdray.data.cells import passages_in, text_in
from kdray.data.example import Example
from kdray.spec import declare

DECLARED = declare.Recipe(version=1, column_parameters=("response", "instruction", "context"), passages=("context",))


def columns(
    row: Mapping[str, Any], *, response: str, instruction: str | None = None, context: str | None = None, ask: str = ""
) -> Example:
    """`ask` is the instruction of every row where no column holds one; a context may be a list of passages."""
    return Example(
        text_in(row, instruction).strip() if instruction else ask,
        passages_in(row, context).strip() if context else "",
        text_in(row, response).strip(),
    )
