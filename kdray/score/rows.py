"""The cells of a row of a task's data set.

What is wrong with one row is kept with it and takes no other row with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdray.store.passages import is_passages, joined

SEMICOLON = ";"  # between the answers of a cell that is one text, as in the table of TruthfulQA's authors


class Unusable(ValueError):
    """A row that no model can be asked about, and why."""


def text_in(row: Mapping[str, Any], column: str) -> str:
    """The text in `column`; empty where there is nothing. A list of texts is one, a paragraph a line; a whole number is
    its digits.

    Raises:
        KeyError: no row has such a column.
        Unusable: it holds something else.
    """
    value = row[column]
    if isinstance(value, list) and all(isinstance(part, str | None) for part in value):
        return "\n".join(part.strip() for part in value if part and part.strip())
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise Unusable(f"column '{column}' holds the {type(value).__name__} {str(value)[:40]}, not a text")


def needed_text_in(row: Mapping[str, Any], column: str) -> str:
    """As `text_in`, of a column without which nothing can be asked.

    Raises:
        KeyError, Unusable: as `text_in`, or there is nothing in it.
    """
    if not (text := text_in(row, column)).strip():
        raise Unusable(f"nothing in column '{column}'")
    return text


def document_in(row: Mapping[str, Any], column: str) -> str:
    """As `needed_text_in`; a list of passages, texts or with titles, is joined (`kdray.store.passages`).

    Raises:
        KeyError, Unusable: as `needed_text_in`.
    """
    value = row[column]
    if isinstance(value, list | Mapping):
        if not is_passages(value):
            kind = "mapping" if isinstance(value, Mapping) else "list"
            raise Unusable(f"column '{column}' holds a {kind} that is none of passages with a text")
        value = joined(value)
    return needed_text_in({column: value}, column)


def reference_in(row: Mapping[str, Any], column: str, *, lines: bool = False) -> list[str]:
    """The text in `column` as the one reference; none where there is nothing: then nothing can be compared with it.

    Raises:
        KeyError, Unusable: as `text_in`; or it holds several texts, unless these are the `lines` of one.
    """
    if not lines and isinstance(row[column], list) and len(row[column]) > 1:
        raise Unusable(f"column '{column}' holds {len(row[column])} texts, not one")
    text = text_in(row, column)
    return [text] if text.strip() else []


def texts_in(row: Mapping[str, Any], column: str, separator: str | None = None) -> list[str]:
    """The texts of the list in `column`; a single one, or with a `separator` those between it. Empty ones are left out.

    Raises:
        KeyError, Unusable: as `text_in`.
    """
    value = row[column]
    parts = (
        value
        if isinstance(value, list)
        else text_in(row, column).split(separator)
        if separator
        else [text_in(row, column)]
    )
    return [text.strip() for part in parts if (text := text_in({column: part}, column)).strip()]


def passages_in(row: Mapping[str, Any], column: str) -> list[str]:
    """The passages of HotpotQA as `title: sentences`: of a mapping of two lists, as on the hub, or of [title,
    [sentence, ...]] pairs.

    Raises:
        KeyError, Unusable: as `text_in`, or there is no passage.
    """
    value = row[column]
    try:
        if isinstance(value, Mapping):
            pairs = list(zip(value["title"], value["sentences"], strict=True))
        else:
            pairs = [
                (one["title"], one["sentences"]) if isinstance(one, Mapping) else (one[0], one[1]) for one in value
            ]
        found = [f"{title}: {(lines if isinstance(lines, str) else ''.join(lines)).strip()}" for title, lines in pairs]
    except (KeyError, IndexError, TypeError, ValueError):
        kind = "nothing" if value is None else f"a {type(value).__name__}"
        raise Unusable(f"column '{column}' holds {kind}, not titles with their sentences") from None
    if not found:
        raise Unusable(f"nothing in column '{column}'")
    return found


def gold_passages_in(row: Mapping[str, Any], column: str) -> str:
    """The texts of those passages in a list that are marked `isgold`, a line each; of all where none is marked.

    Raises:
        KeyError, Unusable: as `text_in`, or there is no text.
    """
    value = row[column]
    if not isinstance(value, list) or not all(isinstance(passage, Mapping) and "text" in passage for passage in value):
        kind = "nothing" if value is None else f"a {type(value).__name__}"
        raise Unusable(f"column '{column}' holds {kind}, not passages with a text")
    gold = [passage for passage in value if passage.get("isgold")] or value
    return needed_text_in({column: [text_in(passage, "text") for passage in gold]}, column)
