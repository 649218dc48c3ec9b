"""A teacher's responses to training prompts, which `augment` keeps as parts until they are put into rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from kdray.artifacts.parts import all_parts
from kdray.artifacts.tables import read_like, write_table_part

SCHEMA = pa.schema([("row", pa.int64()), ("output_ids", pa.list_(pa.int32()))])


def write_responses(folder: Path, index: int, rows: Sequence[int], responses: Sequence[list[int]]) -> None:
    """Keep the token ids that answer some rows."""
    write_table_part(folder, index, pa.table([list(rows), list(responses)], schema=SCHEMA))


def read_responses(folder: Path) -> pa.ChunkedArray:
    """All responses as token ids, in the order of their rows.

    Raises:
        InputError: a part is damaged.
    """
    return pa.concat_tables([read_like(path, SCHEMA) for path in all_parts(folder)]).sort_by("row")["output_ids"]
