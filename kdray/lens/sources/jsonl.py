"""Our own format, for any annotations: one JSON object a line.

id, document, response     texts
spans                      hallucinated spans of the response: [[start, end], ...] in characters
before, after              optional: the prompt's text around the document
input_ids, output_ids      optional: the stored ids of the prompt and of the response
writer                     optional: the model that wrote the response
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kdray.lens.annotations import Annotated
from kdray.lens.read import read_lines

VERSION = 1


def jsonl(path: Path) -> Iterator[Annotated]:
    for row in read_lines(path, ("id", "document", "response", "spans")):
        yield Annotated(
            id=str(row["id"]),
            document=row["document"],
            response=row["response"],
            spans=tuple(sorted((int(begin), int(end)) for begin, end in row["spans"])),
            prompt=(row.get("before", ""), row["after"]) if "after" in row else None,
            input_ids=tuple(row["input_ids"]) if "input_ids" in row else None,
            output_ids=tuple(row["output_ids"]) if "output_ids" in row else None,
            writer=row.get("writer", ""),
        )
