"""Rows that already are (instruction, context, response), as in databricks/databricks-dolly-15k."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdray.data.cells import text_in
from kdray.data.example import Example
from kdray.spec import declare

DECLARED = declare.Recipe(version=1, columns=("instruction", "context", "response"))


def dolly(row: Mapping[str, Any]) -> Example:
    """With the template `alpaca`, `max_prompt` 256 and `max_length` 512 this is MiniLLM's preprocessing, white space
    at the ends of texts aside (arXiv:2306.08543; the base framework of the smoothed-KD paper)."""
    return Example(*(text_in(row, column).strip() for column in DECLARED.columns))
