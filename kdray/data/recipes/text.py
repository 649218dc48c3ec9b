"""Plain text without prompts, for distillation as in pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdray.data.cells import text_in
from kdray.data.example import Document
from kdray.spec import declare

DECLARED = declare.Recipe(version=1, column_parameters=("column",), prompts=False)


def text(row: Mapping[str, Any], *, column: str = "text") -> Document | None:
    """None for a blank text; any other is kept to the last space."""
    found = text_in(row, column)
    return Document(found) if found.strip() else None
