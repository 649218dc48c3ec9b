"""FaithBench (arXiv 2410.13210): summaries of many models with people's spans, labelled by how bad they are.

Only spans labelled "Unwanted" count as hallucinated: of the others, "Benign" ones are unsupported but true, and people did
not agree on "Questionable" ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdray.lens.annotations import Annotated
from kdray.lens.read import read_lines

VERSION = 1
LABEL = "Unwanted"


def faithbench(path: Path) -> Iterator[Annotated]:
    for row in read_lines(path, ("id", "source", "summary", "spans")):
        spans = {(span["start"], span["end"]) for span in row["spans"] if any(label.split(".")[0] == LABEL for label in span["label"])}
        writer = row.get("metadata", {}).get("summarizer", "")
        yield Annotated(str(row["id"]), row["source"], row["summary"], tuple(sorted(spans)), writer=writer)
