"""Data sets with damage of any kind are read, or refused in one line."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdray.spec.columns import Column
from kdray.store.records import Records, open_table
from tests.mutations import DAMAGED, damaged, loads_or_says_so

CSV = b'question,answer\nWhat?,That\n"a, b","c\nd"\nx,y\n' * 3
COLUMNS = (Column(("question",)), Column(("answer",)))


def zipped() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/rows.csv", CSV)
    return packed.getvalue()


WHOLE = {
    "jsonl": b'{"question": "a", "answer": "b"}\n{"question": "c", "answer": "d"}\n',
    "json": b'[{"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}]',
    "csv": CSV,
    "zip": zipped(),
}


@pytest.mark.parametrize("columns", [COLUMNS, ()])
@pytest.mark.parametrize("suffix", WHOLE)
@DAMAGED
@given(data=st.data())
def test_a_table_is_read_or_refused(
    tmp_path: Path, suffix: str, columns: tuple[Column, ...], data: st.DataObject
) -> None:
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(data.draw(damaged(WHOLE[suffix])))

    def read() -> None:
        with open_table(path, "data.source") as (file, found):
            list(Records(file, found, columns, path.name, "data.source"))

    loads_or_says_so(read)


def test_a_zip_whose_parts_begin_before_it_does_is_refused(tmp_path: Path) -> None:
    """What is left where bytes in the middle are missing: its end then points in front of its beginning."""
    path, whole = tmp_path / "rows.zip", zipped()
    path.write_bytes(whole[:30] + whole[42:])
    loads_or_says_so(lambda: open_table(path, "data.source").__enter__())
