"""RAGTruth (arXiv 2401.00396): responses of six models to three tasks with people's spans.

`path` is its `response.jsonl`; `source_info.jsonl` lies beside it. The prompts are those that the responses' writers
saw.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdray.lens.annotations import Annotated
from kdray.lens.read import as_text, items, read_lines, span, text
from kdray.spec import declare
from kdray.spec.errors import InputError

DECLARED = declare.Annotations(version=1, beside="source_info.jsonl")


def ragtruth(path: Path) -> Iterator[Annotated]:
    sources = dict(read_lines(path.with_name(str(DECLARED.beside)), ("source_id", "source_info", "prompt"), _source))

    def one(row: dict[str, Any]) -> Annotated:
        id = as_text(str(row["id"]), "id")
        if row["source_id"] not in sources:
            raise InputError(
                "annotations", f"response '{id}' has no source '{row['source_id']}'", "see source_info.jsonl"
            )
        document, prompt = sources[row["source_id"]]
        spans = {span(label["start"], label["end"]) for label in items(row["labels"], "labels")}
        return Annotated(
            id, document, text(row, "response"), tuple(sorted(spans)), prompt=prompt, writer=text(row, "model", "")
        )

    return read_lines(path, ("id", "source_id", "response", "labels"), one)


def _source(row: dict[str, Any]) -> tuple[str | int, tuple[str, tuple[str, str] | None]]:
    """A source's id, its document, and the prompt around it if that has the document."""
    if not isinstance(id := row["source_id"], str | int):
        raise TypeError("source_id is neither a text nor a number")
    document, whole = _document(row["source_info"]), text(row, "prompt")
    before, found, after = whole.rpartition(document) if document else ("", "", "")
    return id, (document, (before, after) if found else None)


def _document(info: Any) -> str:
    """An article, the passages of a question, or a table's facts."""
    if isinstance(info, str):
        return as_text(info, "source_info").strip()
    if not isinstance(info, dict):
        raise TypeError("source_info is neither a text nor an object")
    return text(info, "passages").strip() if "passages" in info else json.dumps(info)
