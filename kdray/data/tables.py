"""Local tables as Arrow files: of the columns that are read alone, with types that the whole file decides.

An Arrow file lies in the store's cache under the hash of what it was made of, so a file that has changed is never mixed
up with what it was. Texts are texts. What is no text is kept as JSON, or in a table without a recipe, which is small,
as what all cells are.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Json

from kdray.data.parquet import ROWS, open_parquet, parquet_batches
from kdray.spec.columns import Column
from kdray.spec.errors import InputError
from kdray.spec.refs import Reference
from kdray.store import Outer, fingerprint, io
from kdray.store.records import CSV, TEXTS, Records, open_table

READER = 1  # what is in the cache was made by another one if this differs
BYTES = 1 << 24  # and `ROWS`: at most, of a batch in an Arrow file
JSON = pa.json_(pa.string())
WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")  # written in the one way in which it is printed again


def arrow_file(
    ref: Reference, outer: Outer, columns: Sequence[Column], identity: Mapping[str, Any] | None, field: str
) -> Path:
    """A local table, or one out of a wheel or from an address, as an Arrow stream on disk, made once for these columns.

    `identity` is what it was when the run began.

    Raises:
        InputError: it cannot be read exactly, lacks a column, has no rows, or is not what it was.
    """
    identity = identity or outer.resolve(ref, field)
    file = outer.local_file(ref, field)
    wanted = [[*column.names, column.key, column.holds] for column in columns]
    made = fingerprint({"reader": READER, "of": dict(identity), "format": file.suffix.lower(), "columns": wanted})
    path = outer.root / "cache" / "tables" / made / "rows.arrow"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f"{io.TEMPORARY}{uuid.uuid4().hex}")
        try:
            _write(aside, file, columns, str(ref), field)
            outer.require_unchanged(ref, identity, field)
            io.move(aside, path)
        finally:
            io.delete(aside)
    return path


def _write(path: Path, file: Path, columns: Sequence[Column], name: str, field: str) -> None:
    with open_table(file, field) as (table, suffix):
        if suffix not in TEXTS:
            _write_batches(path, parquet_batches(open_parquet(table, columns, name, field), columns, name, field))
            return
        records = Records(table, suffix, columns, name, field)
        if not columns or any(column.holds == "anything" for column in columns):
            write_typed(path, list(records), field, numbers=suffix == CSV)
            return
        _write_batches(path, _text_batches(records, columns))
    names = {column: tuple(name for name in column.names if name in records.seen) for column in columns}
    if any(
        names[column] != column.names for column in columns
    ):  # which of two names a table has is known behind its last row
        _write(path, file, [replace(column, names=names[column]) for column in columns], name, field)


def write_typed(path: Path, rows: list[dict[str, Any]], field: str, *, numbers: bool = False) -> None:
    """Rows as an Arrow stream, whole columns with the type of their cells, and as JSON where cells are of several
    types.

    `numbers`: a column of texts in which every cell is a whole number as it is printed, or empty, is one of numbers,
    since tasks choose their answers by such; any other text stays what it is.

    Raises:
        InputError: a column that cannot be kept exactly.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    if numbers:
        columns = {name: _numbers(cells) or cells for name, cells in columns.items()}
    _write_batches(
        path, pa.table({name: _column(cells, name, field) for name, cells in columns.items()}).to_batches(ROWS)
    )


def _write_batches(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    batches = iter(batches)
    first = next(batches)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def _text_batches(records: Records, columns: Sequence[Column]) -> Iterator[pa.RecordBatch]:
    """Rows of texts as texts, and of lists and mappings of texts as JSON; empty where a row lacks a column."""
    plain = {name: column.holds == "text" and not column.key for column in columns for name in column.names}
    schema = pa.schema([(name, pa.string() if text else JSON) for name, text in plain.items()])
    rows: list[dict[str, Any]] = []
    size = 0

    def batch() -> pa.RecordBatch:
        cells = {name: [row.get(name) for row in rows] for name in plain}
        return pa.record_batch(
            [pa.array(cells[name], pa.string()) if text else _json(cells[name]) for name, text in plain.items()], schema
        )

    for row in records:
        rows.append(row)
        size += sum(len(cell) for cell in row.values() if isinstance(cell, str))
        if len(rows) == ROWS or size > BYTES:
            yield batch()
            rows.clear()
            size = 0
    if rows:
        yield batch()


def _numbers(cells: list[Any]) -> list[Any] | None:
    if any(cells) and all(not cell or WHOLE_NUMBER.fullmatch(cell) for cell in cells):
        return [int(cell) if cell else None for cell in cells]
    return None


def _column(cells: list[Any], name: str, field: str) -> pa.Array:
    for kind in (None, pa.uint64()):
        try:
            array = pa.array(cells, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
            continue  # cells of several types, or numbers beyond 63 bits
        if _same(array.to_pylist(), cells):
            return array
    array = _json(cells)
    for number, (cell, text) in enumerate(zip(cells, array.storage.to_pylist(), strict=True), start=1):
        if not _same(Json().decode_example(text), cell):  # it reads fractions of many digits only nearly
            raise InputError(
                field,
                f"column '{name}' holds cells of several kinds, and '{text[:40]}' in row {number}",
                "give it one kind",
            )
    return array


def _same(made: Any, given: Any) -> bool:
    """Whether Arrow kept a cell: it makes 1 to 1.0 beside 2.5.

    What a mapping lacks beside others may become nothing.
    """
    if type(made) is not type(given):
        return False
    if isinstance(made, dict):
        return given.keys() <= made.keys() and all(_same(value, given.get(key)) for key, value in made.items())
    if isinstance(made, list):
        return len(made) == len(given) and all(map(_same, made, given))
    return made == given or (made != made and given != given)  # neither is a number


def _json(cells: list[Any]) -> pa.Array:
    texts = [None if cell is None else json.dumps(cell, ensure_ascii=False) for cell in cells]
    return pa.ExtensionArray.from_storage(JSON, pa.array(texts, pa.string()))
