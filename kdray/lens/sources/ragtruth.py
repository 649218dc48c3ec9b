"""RAGTruth (arXiv 2401.00396): responses of six models to three tasks with people's spans.

`path` is its `response.jsonl`; `source_info.jsonl` lies beside it. The prompts are those that the responses' writers saw.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdray.lens.annotations import Annotated
from kdray.lens.read import read_lines
from kdray.spec.errors import InputError

VERSION = 1
BESIDE = "source_info.jsonl"  # another file in the same folder


def ragtruth(path: Path) -> Iterator[Annotated]:
    sources = {row["source_id"]: row for row in read_lines(path.with_name(BESIDE), ("source_id", "source_info", "prompt"))}
    for row in read_lines(path, ("id", "source_id", "response", "labels")):
        if row["source_id"] not in sources:
            raise InputError("annotations", f"response '{row['id']}' has no source '{row['source_id']}'", "see source_info.jsonl")
        source = sources[row["source_id"]]
        document = _document(source["source_info"])
        before, found, after = source["prompt"].rpartition(document)
        spans = {(label["start"], label["end"]) for label in row["labels"]}
        prompt = (before, after) if found else None
        yield Annotated(str(row["id"]), document, row["response"], tuple(sorted(spans)), prompt=prompt, writer=row.get("model", ""))


def _document(info: Any) -> str:
    """An article, the passages of a question, or a table's facts."""
    if isinstance(info, str):
        return info.strip()
    return info["passages"].strip() if "passages" in info else json.dumps(info)
