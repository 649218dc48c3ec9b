"""A text that a cell holds in pieces: a list of passages, as retrieval leaves them.

A passage is a text, or a mapping with a `text` and perhaps a `title`. They are joined in their order, a passage a line,
a title before its text as `title: text`; what is empty is left out. Parquet and the hub may have a list of mappings as
a mapping of lists, `{title: [...], text: [...]}`, which is read alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PASSAGES = "text, or a list of passages (texts, or mappings with a text and perhaps a title)"


def is_passages(value: Any) -> bool:
    """Whether a cell holds a list of passages, in one of their forms."""
    return _pieces(value) is not None


def joined(value: Any) -> str:
    """The passages in a cell as one text.

    Raises:
        ValueError: it holds something else.
    """
    if (pieces := _pieces(value)) is None:
        raise ValueError("no list of passages")
    lines = [(title.strip(), text.strip()) for title, text in pieces]
    return "\n".join(f"{title}: {text}" if title else text for title, text in lines if text)


def _pieces(value: Any) -> list[tuple[str, str]] | None:
    """Titles and texts; None where these are no passages."""
    if isinstance(value, Mapping):
        texts = value.get("text")
        titles = value.get("title") or [None] * len(texts) if isinstance(texts, list) else None
        if not isinstance(texts, list) or not isinstance(titles, list) or len(titles) != len(texts):
            return None
        value = [{"title": title, "text": text} for title, text in zip(titles, texts, strict=True)]
    if not isinstance(value, list):
        return None
    pieces = [_piece(passage) for passage in value]
    return None if None in pieces else [piece for piece in pieces if piece is not None]


def _piece(passage: Any) -> tuple[str, str] | None:
    if isinstance(passage, Mapping) and "text" in passage:
        title, text = passage.get("title"), passage["text"]
    else:
        title, text = None, passage
    if not isinstance(title, str | None) or not isinstance(text, str | None):
        return None
    return title or "", text or ""
