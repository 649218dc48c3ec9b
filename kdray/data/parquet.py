"""Parquet files: whether they have what is wanted, and their columns, which have types already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kdray.spec.columns import Column
from kdray.spec.errors import InputError
from kdray.store.records import no_column, wrong_cell

ROWS = 1000  # of a batch


def open_parquet(file: Any, columns: Sequence[Column], name: str, field: str) -> pq.ParquetFile:
    """A Parquet file with rows and what is wanted in `columns`."""
    try:
        parquet = pq.ParquetFile(file)
        schema = parquet.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, error, field) from None
    if not parquet.metadata.num_rows:
        raise InputError(field, f"{name} has no rows", "give a data set with rows")
    for column in columns:
        there = [place for place, known in enumerate(schema.names) if known in column.names]
        if not there:
            raise no_column(column, name, schema.names, field)
        for place in there:
            if schema.names.count(schema.names[place]) > 1:
                raise InputError(
                    field, f"two columns of {name} are called '{schema.names[place]}'", "give each a name of its own"
                )
            if not _fits(schema.field(place).type, column):
                raise wrong_cell(column, schema.names[place], f"{schema.field(place).type} in {name}", field)
    return parquet


def _fits(kind: pa.DataType, column: Column) -> bool:
    if column.holds == "anything":
        return True
    if column.key:
        return (
            pa.types.is_struct(kind) and kind.get_field_index(column.key) >= 0 and _is_list(kind.field(column.key).type)
        )
    return (
        _is_text(kind)
        or (column.holds == "texts" and _is_list(kind))
        or (column.holds == "passages" and _is_passages(kind))
    )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return any(
        test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    )


def _is_passages(kind: pa.DataType) -> bool:
    """Whether it is a list of texts or of structs with a text, or a struct of such lists."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("text") >= 0 and _is_list(kind.field("text").type)
    if not any(test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
        return False
    each = kind.value_type
    if pa.types.is_struct(each):
        return each.get_field_index("text") >= 0 and _is_text(each.field("text").type)
    return _is_text(each)


def _is_list(kind: pa.DataType) -> bool:
    """Whether it is a list of texts, or of such lists."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in lists) and (_is_text(kind.value_type) or _is_list(kind.value_type))


def parquet_batches(
    parquet: pq.ParquetFile, columns: Sequence[Column], name: str, field: str
) -> Iterator[pa.RecordBatch]:
    """The columns as they are, and categories as the texts that they stand for."""
    wanted = {name for column in columns for name in column.names} or {*parquet.schema_arrow.names}
    try:
        for batch in parquet.iter_batches(
            ROWS, columns=[name for name in parquet.schema_arrow.names if name in wanted]
        ):
            batch.validate(full=True)  # texts that are no UTF-8
            arrays = [array.cast(pa.string()) if _is_text(array.type) else array for array in batch.columns]
            yield pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(name, error, field) from None


def _damaged(name: str, error: Exception, field: str) -> InputError:
    return InputError(
        field, f"{name} is damaged ({next(iter(str(error).splitlines()), '')[:160]})", "give a whole Parquet file"
    )
