"""Our own format, for any annotations: one JSON object a line.

id, document, response     texts
spans                      hallucinated spans of the response: [[start, end], ...] in characters
before, after              optional: the prompt's text around the document
input_ids, output_ids      optional: the stored ids of the prompt and of the response
unfound                    optional: what an annotator objects to and is not in the response, which is then left out
writer                     optional: the model that wrote the response
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

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
            unfound=tuple(row.get("unfound", ())),
            writer=row.get("writer", ""),
        )


def write_jsonl(rows: Iterable[Annotated], path: Path) -> None:
    """Keep annotated responses in this format."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            line: dict[str, Any] = {"id": row.id, "document": row.document, "response": row.response, "spans": row.spans}
            if row.prompt is not None:
                line["before"], line["after"] = row.prompt
            optional = {"input_ids": row.input_ids, "output_ids": row.output_ids, "unfound": row.unfound, "writer": row.writer}
            file.write(json.dumps(line | {name: value for name, value in optional.items() if value}) + "\n")
