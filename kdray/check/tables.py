"""Whether a data set can be read and has what is asked of it, as far as its name and its text say.

Text files are read here by what reads them later, to the end where they are not long. Into Parquet files
`kdray.data.look` looks.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from kdray.spec.columns import Column
from kdray.spec.errors import InputError
from kdray.spec.refs import Reference
from kdray.store.records import FORMATS, TEXTS, Records, format_of, open_table, unknown_format

WHOLE = (
    1 << 26
)  # bytes of a file that are looked at, which takes a second: of a longer one a damaged end is found by the run
EVERY = 1000  # rows
MAGIC = b"PAR1"  # at both ends of a Parquet file


def check_table(ref: Reference, field: str, columns: Sequence[Column] | None) -> None:
    """Whether a data set has a format that can be read and, if it is a local file, rows with what is wanted in
    `columns`.

    None of them are given for a file that is not read as rows: that is only opened.

    Raises:
        InputError: it is not so.
    """
    if ref.scheme != "file":
        if ref.scheme != "hf" and format_of(ref.path or ref.name) not in (*FORMATS, ".zip"):
            raise unknown_format(str(ref), field)
        return
    with open_table(Path(ref.name), field) as (file, suffix):
        if suffix not in TEXTS:
            if file.read(4) != MAGIC or file.seek(-4, io.SEEK_END) < 4 or file.read(4) != MAGIC:
                raise InputError(field, f"{ref} is no whole Parquet file, whatever its name", "fetch it again")
            return
        if columns is None:
            return
        records = Records(file, suffix, columns, str(ref), field)
        for number, _ in enumerate(records):
            if number % EVERY == 0 and file.tell() > WHOLE and not records.missing():
                return
