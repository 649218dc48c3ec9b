"""QAGS (arXiv 2004.04228): summaries of CNN/DM and XSUM, each sentence judged faithful or not; a sentence is a span."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdray.lens.annotations import Annotated
from kdray.lens.read import read_lines

VERSION = 1


def qags(path: Path) -> Iterator[Annotated]:
    for row in read_lines(path, ("id", "article", "sentences")):
        spans, begin = [], 0
        for sentence in row["sentences"]:
            end = begin + len(sentence["sentence"])
            if not sentence["faithful"]:
                spans.append((begin, end))
            begin = end + 1
        response = " ".join(sentence["sentence"] for sentence in row["sentences"])
        yield Annotated(str(row["id"]), row["article"], response, tuple(spans))
