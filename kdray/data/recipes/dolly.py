"""Rows that already are (instruction, context, response), as in databricks/databricks-dolly-15k."""

from __future__ import annotations

from collections.abc import Mapping

from kdray.data.example import Example

VERSION = 1
COLUMNS = ("instruction", "context", "response")


def dolly(row: Mapping[str, str]) -> Example:
    return Example(row["instruction"].strip(), (row["context"] or "").strip(), row["response"].strip())
