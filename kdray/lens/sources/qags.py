"""QAGS (arXiv 2004.04228): summaries of CNN/DM and XSUM, each sentence judged faithful or not; a sentence is a span."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdray.lens.annotations import Annotated
from kdray.lens.read import as_text, items, read_lines, text
from kdray.spec import declare

DECLARED = declare.Annotations(version=1)


def qags(path: Path) -> Iterator[Annotated]:
    return read_lines(path, ("id", "article", "sentences"), _one)


def _one(row: dict[str, Any]) -> Annotated:
    spans, begin, sentences = [], 0, items(row["sentences"], "sentences")
    for sentence in sentences:
        end = begin + len(text(sentence, "sentence"))
        if not isinstance(sentence["faithful"], bool):
            raise TypeError("faithful is neither true nor false")
        if not sentence["faithful"]:
            spans.append((begin, end))
        begin = end + 1
    response = " ".join(sentence["sentence"] for sentence in sentences)
    return Annotated(as_text(str(row["id"]), "id"), text(row, "article"), response, tuple(spans))
