"""The answers to a benchmark's requests, which `measure` keeps as parts until all of them are there to be summed up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from kdray.artifacts.parts import all_parts
from kdray.artifacts.tables import read_like, write_table_part

SCHEMA = pa.schema(
    [
        ("request", pa.int64()),
        ("loglikelihood", pa.float64()),
        ("greedy", pa.bool_()),
        ("text", pa.string()),
        ("error", pa.string()),
    ]
)


def write_requests(folder: Path, index: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep the answers to one part of the requests."""
    write_table_part(folder, index, pa.Table.from_pylist([dict(row) for row in rows], SCHEMA))


def read_requests(folder: Path) -> list[dict[str, Any]]:
    """The answers to all requests, with the columns of `SCHEMA`.

    Raises:
        InputError: a part is damaged.
    """
    return [row for path in all_parts(folder) for row in read_like(path, SCHEMA, SCHEMA.names).to_pylist()]
