"""Rows balanced by concept: parts with every row's matches, its chance and whether it was kept, `concepts.parquet` with
how often each entry of the metadata was matched, and in `chosen.json`, where rows are to be trained on, which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kdray.artifacts.files import read_object, reading
from kdray.artifacts.tables import read_like

CONCEPTS, CHOSEN, METADATA = "concepts.parquet", "chosen.json", "metadata.parquet"
MATCHES = pa.schema([("row", pa.int64()), ("language", pa.string()), ("entries", pa.list_(pa.int32()))])
ROWS = pa.schema([*MATCHES, ("chance", pa.float64()), ("kept", pa.bool_())])
ENTRIES = pa.schema([("language", pa.string()), ("entry", pa.string())])
COUNTED = pa.schema([*ENTRIES, ("matches", pa.int64()), ("chance", pa.float64()), ("kept", pa.int64())])


def write_metadata(folder: Path, entries: Mapping[str, Sequence[str]]) -> None:
    """Keep the entries of each language; they are numbered in their order."""
    languages = [language for language, some in entries.items() for _ in some]
    table = pa.table([languages, [entry for some in entries.values() for entry in some]], schema=ENTRIES)
    pq.write_table(table, folder / METADATA)


def read_metadata(folder: Path, language: str) -> list[str]:
    """The entries of a language, none where it has none."""
    return pq.read_table(folder / METADATA, filters=[("language", "==", language)])["entry"].to_pylist()


def write_concepts(folder: Path, concepts: pa.Table) -> None:
    pq.write_table(concepts, folder / CONCEPTS)


def read_concepts(folder: Path) -> pa.Table:
    """A row an entry of the metadata: its language, how many rows match it, the chance of such a match, and how many
    of the rows kept match it.

    Raises:
        InputError: the file is missing or damaged.
    """
    return read_like(folder / CONCEPTS, COUNTED)


def write_chosen(folder: Path, chosen: Mapping[str, np.ndarray]) -> None:
    """Keep which source rows are trained on, by what they are called in a grid: `balanced`, `random`."""
    (folder / CHOSEN).write_text(json.dumps({name: rows.tolist() for name, rows in chosen.items()}))


def read_chosen(folder: Path, name: str) -> np.ndarray:
    """The numbers [n] of the source rows of that name.

    Raises:
        InputError: the file is missing or damaged.
    """
    chosen = read_object(folder / CHOSEN)
    with reading(folder / CHOSEN):
        rows = chosen[name]
        if not isinstance(rows, list) or not all(type(row) is int and row >= 0 for row in rows):
            raise ValueError(f"no numbers of rows in '{name}'")
        return np.array(rows, dtype=np.int64)
