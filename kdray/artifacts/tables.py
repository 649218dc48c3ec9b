"""Parquet files in artifacts, as parts and by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kdray.artifacts.files import reading
from kdray.artifacts.parts import write_part

SUFFIX = ".parquet"


def write_table_part(folder: Path, index: int, table: pa.Table) -> None:
    write_part(folder, index, SUFFIX, lambda path: pq.write_table(table, path))


def columns_of(path: Path) -> list[str]:
    """The names of a Parquet file's columns.

    Raises:
        InputError: it is missing or damaged.
    """
    with reading(path):
        return pq.read_schema(path).names


def read_table(path: Path, needed: Sequence[str] = (), wanted: Sequence[str] | None = None) -> pa.Table:
    """The columns `needed` of a Parquet file, and those of `wanted` that it has; by default all.

    Raises:
        InputError: it is missing or damaged, or has no such column.
    """
    with reading(path):
        file = pq.ParquetFile(path)
        present = file.schema_arrow.names
        if missing := [name for name in needed if name not in present]:
            raise ValueError(f"no column '{missing[0]}'")
        table = file.read(columns=[name for name in present if wanted is None or name in (*needed, *wanted)])
        table.validate(full=True)  # texts that are no UTF-8 would fail where they are read
        return table


def read_like(path: Path, schema: pa.Schema, nullable: Sequence[str] = ()) -> pa.Table:
    """The columns of a schema, as its types; other columns are left out, and only those `nullable` may be empty
    somewhere.

    Raises:
        InputError: as `read_table`, or a column is of another kind, or empty where it may not be.
    """
    table = read_table(path, schema.names, ())
    with reading(path):
        table = table.select(schema.names).cast(schema)
        if empty := [name for name in schema.names if name not in nullable and table[name].null_count]:
            raise ValueError(f"nothing in column '{empty[0]}'")
        return table
