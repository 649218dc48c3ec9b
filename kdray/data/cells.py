"""Reading the cells of a source row, with a line that names the column where one is not what a recipe needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdray.spec.errors import InputError
from kdray.store.passages import PASSAGES, is_passages, joined
from kdray.store.records import described

FIELD = "data.source"


def text_in(row: Mapping[str, Any], column: str) -> str:
    """The text in `column`; empty where the cell is.

    Raises:
        InputError: there is no such column, or it holds something other than text.
    """
    value = _cell(row, column)
    if not isinstance(value, str | None):
        raise InputError(FIELD, f"column '{column}' holds {described(value)}", "it must hold text")
    return value or ""


def passages_in(row: Mapping[str, Any], column: str) -> str:
    """As `text_in`; a list of passages is joined to one text, as `kdray.store.passages` says.

    Raises:
        InputError: there is no such column, or it holds something else.
    """
    value = _cell(row, column)
    if isinstance(value, str | None):
        return value or ""
    if not is_passages(value):
        raise InputError(FIELD, f"column '{column}' holds {described(value, deep=True)}", f"it must hold {PASSAGES}")
    return joined(value)


def texts_in(row: Mapping[str, Any], column: str, key: str) -> list[str]:
    """The list of texts under `key` of the mapping in `column`.

    Raises:
        InputError: there is no such column, or it holds something else.
    """
    value = _cell(row, column)
    if (
        isinstance(value, Mapping)
        and isinstance(texts := value.get(key), list)
        and all(isinstance(text, str) for text in texts)
    ):
        return texts
    found = f"column '{column}' holds {described(value, deep=True)}"
    raise InputError(FIELD, found, f"it must hold a mapping with a list of texts, '{key}'")


def _cell(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise InputError(FIELD, f"no column '{column}'", f"it has {', '.join(row)}")
    return row[column]
