"""FaithBench (arXiv 2410.13210): summaries of many models with people's spans, labelled by how bad they are.

Only spans labelled "Unwanted" count as hallucinated: of the others, "Benign" ones are unsupported but true, and people
did not agree on "Questionable" ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdray.lens.annotations import Annotated
from kdray.lens.read import as_text, items, read_lines, span, text
from kdray.spec import declare

DECLARED = declare.Annotations(version=1)
LABEL = "Unwanted"


def faithbench(path: Path) -> Iterator[Annotated]:
    return read_lines(path, ("id", "source", "summary", "spans"), _one)


def _one(row: dict[str, Any]) -> Annotated:
    spans = {
        span(marked["start"], marked["end"]) for marked in items(row["spans"], "spans") if _counts(marked["label"])
    }
    writer = text(row.get("metadata") or {}, "summarizer", "")
    return Annotated(
        as_text(str(row["id"]), "id"), text(row, "source"), text(row, "summary"), tuple(sorted(spans)), writer=writer
    )


def _counts(labels: Any) -> bool:
    return LABEL in {as_text(label, "label").split(".")[0] for label in items(labels, "label")}
