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
from kdray.lens.read import as_text, items, read_lines, span, text, token_ids
from kdray.spec import declare
from kdray.store import io

DECLARED = declare.Annotations(version=1)


def jsonl(path: Path) -> Iterator[Annotated]:
    return read_lines(path, ("id", "document", "response", "spans"), _one)


def write_jsonl(rows: Iterable[Annotated], path: Path) -> None:
    """Keep annotated responses in this format, all of them or none."""
    io.put(path, "".join(map(_line, rows)).encode())


def _one(row: dict[str, Any]) -> Annotated:
    before = text(row, "before", "")
    return Annotated(
        id=as_text(str(row["id"]), "id"),
        document=text(row, "document"),
        response=text(row, "response"),
        spans=tuple(sorted(span(*items(pair, "a span")) for pair in items(row["spans"], "spans"))),
        prompt=(before, text(row, "after")) if row.get("after") is not None else None,
        input_ids=token_ids(row, "input_ids"),
        output_ids=token_ids(row, "output_ids"),
        unfound=tuple(as_text(quote, "unfound") for quote in items(row.get("unfound") or [], "unfound")),
        writer=text(row, "writer", ""),
    )


def _line(row: Annotated) -> str:
    line: dict[str, Any] = {"id": row.id, "document": row.document, "response": row.response, "spans": row.spans}
    if row.prompt is not None:
        line["before"], line["after"] = row.prompt
    optional = {"input_ids": row.input_ids, "output_ids": row.output_ids, "unfound": row.unfound, "writer": row.writer}
    return json.dumps(line | {name: value for name, value in optional.items() if value}) + "\n"
