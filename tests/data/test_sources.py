"""Every local format gives the same rows; what cannot be read says so in one line."""

from __future__ import annotations

import csv
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdray.data.sources import open_source
from kdray.spec.errors import InputError
from kdray.spec.refs import parse_reference
from kdray.store import Outer

ROWS = [{"instruction": "a", "response": "x, y"}, {"instruction": 'b "quoted"', "response": "two\nlines"}]


def write(folder, kind):
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "json":
        path.write_text(json.dumps(ROWS))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(ROWS[0]))
            writer.writeheader()
            writer.writerows(ROWS)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(write(folder, "csv"), "inside/rows.csv")
            archive.writestr("README.txt", "not a table")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "zip"])
def test_every_format_gives_the_same_rows(tmp_path, kind):
    table = open_source(parse_reference(f"file:{write(tmp_path, kind)}"), Outer(tmp_path / "store"))
    assert table.to_list() == ROWS


@pytest.mark.parametrize(
    ("name", "content", "finding"),
    [
        ("rows.txt", "hello", "no known format"),
        ("rows.jsonl", "", "no rows"),
        ("rows.jsonl", '{"a": 1}\n{"a": ', "is damaged"),
        ("rows.csv", "a,b\n", "no rows"),
        ("rows.json", "[]", "no rows"),
        ("rows.jsonl", "\n \n", "no rows"),
        ("rows.parquet", "no parquet", "is damaged"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, name, content, finding):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=finding) as caught:
        open_source(parse_reference(f"file:{tmp_path / name}"), Outer(tmp_path / "store"))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("data.source: ")


def test_a_parquet_file_without_rows_says_so(tmp_path):
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="has no rows"):
        open_source(parse_reference(f"file:{tmp_path / 'rows.parquet'}"), Outer(tmp_path / "store"))


def test_a_changed_zip_is_read_anew_and_nothing_is_left_beside_it(tmp_path):
    (tmp_path / "data").mkdir()
    for text in ("old", "new"):
        with zipfile.ZipFile(tmp_path / "data" / "rows.zip", "w") as archive:
            archive.writestr("../rows.jsonl", json.dumps({"a": text}) + "\n")
        table = open_source(parse_reference(f"file:{tmp_path / 'data' / 'rows.zip'}"), Outer(tmp_path / "store"))
        assert table.to_list() == [{"a": text}]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["rows.zip"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "store"]


def test_a_zip_with_two_tables_is_ambiguous(tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "x\n1\n")
        archive.writestr("b.csv", "x\n2\n")
    with pytest.raises(InputError, match="2 tables"):
        open_source(parse_reference(f"file:{tmp_path / 'two.zip'}"), Outer(tmp_path / "store"))
