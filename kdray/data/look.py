"""Whether a local table has what is asked of it, Parquet files too. Light until one is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdray.check.tables import check_table
from kdray.spec.columns import Column
from kdray.spec.refs import Reference
from kdray.store.records import TEXTS, open_table


def look_into(ref: Reference, field: str, columns: Sequence[Column] | None) -> None:
    """As `check_table`, and whether a local Parquet file has rows with what is wanted in `columns`.

    Raises:
        InputError: it cannot be read, or has not.
    """
    check_table(ref, field, columns)
    if ref.scheme != "file" or columns is None:
        return
    with open_table(Path(ref.name), field) as (file, suffix):
        if suffix not in TEXTS:
            # Imported where it is used: a check of other files must not wait for pyarrow.
            from kdray.data.parquet import open_parquet

            open_parquet(file, columns, str(ref), field)
