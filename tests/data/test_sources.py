"""Every local format gives the same rows; what cannot be read says so in one line."""

from __future__ import annotations

import csv
import json
import os
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdray.data import tables
from kdray.data.sources import open_source
from kdray.spec.columns import Column, task_columns
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


def test_a_file_that_changed_under_its_name_and_time_is_read_anew(tmp_path):
    path, outer = tmp_path / "rows.jsonl", Outer(tmp_path / "store")
    outer.root.mkdir()
    ref, seen = parse_reference(f"file:{path}"), []
    path.write_text('{"a": "old"}')
    status = path.stat()
    for text in ("old", "new"):
        path.write_text(json.dumps({"a": text}))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        seen.append(outer.identify(ref))
        assert open_source(ref, Outer(outer.root), columns=[Column(("a",))]).to_list() == [{"a": text}]
    assert seen[0] != seen[1]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "zip"])
def test_a_file_that_changes_after_the_plan_is_refused_and_nothing_is_kept(tmp_path, kind, monkeypatch):
    path, outer = write(tmp_path, kind), Outer(tmp_path / "store")
    ref = parse_reference(f"file:{path}")
    planned = outer.identify(ref)
    monkeypatch.setitem(ROWS[0], "response", "another")
    write(tmp_path, kind)
    with pytest.raises(
        InputError, match=rf"^data\.source: .*rows\.{kind} has changed since the run began; leave it as it is"
    ):
        open_source(ref, outer, columns=[Column(("response",))], identity=planned)
    assert [found for found in outer.root.rglob("*") if found.is_file() and found.name != "hashes.json"] == []


def test_local_files_leave_nothing_at_home_and_are_read_once(tmp_path, monkeypatch):
    for name in ("HF_CACHE_HOME", "HF_DATASETS_CACHE", "DOWNLOADED_DATASETS_PATH", "HF_MODULES_CACHE"):
        monkeypatch.setattr(f"datasets.config.{name}", str(tmp_path / "home" / name))
    ref, outer = parse_reference(f"file:{write(tmp_path, 'csv')}"), Outer(tmp_path / "store")
    assert open_source(ref, outer).map(lambda row: {"more": row["response"]}).to_list() == [
        row | {"more": row["response"]} for row in ROWS
    ]
    monkeypatch.setattr(tables, "open_table", None)
    assert open_source(ref, Outer(tmp_path / "store")).to_list() == ROWS
    assert not (tmp_path / "home").exists()


def test_only_the_columns_that_are_asked_for_are_kept(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": "x", "b": {"deep": 1}, "c": [1]}\n{"a": "y", "b": "text", "c": null}\n')
    ref = parse_reference(f"file:{tmp_path / 'rows.jsonl'}")
    assert open_source(ref, Outer(tmp_path / "store"), columns=[Column(("a",))]).to_list() == [{"a": "x"}, {"a": "y"}]
    whole = open_source(ref, Outer(tmp_path / "store")).to_list()
    assert whole == [{"a": "x", "b": {"deep": 1}, "c": [1]}, {"a": "y", "b": "text", "c": None}]


def test_of_two_names_a_table_has_one_and_lists_stay_lists(tmp_path):
    columns = task_columns("truthfulqa", {})
    assert columns
    hub = [{"question": "Q?", "correct_answers": ["7", 'a "b"'], "incorrect_answers": []}]
    (tmp_path / "hub.json").write_text(json.dumps(hub))
    (tmp_path / "own.csv").write_text("Question,Correct Answers,Incorrect Answers\nQ?,7; true,null\n")
    refs = [parse_reference(f"file:{tmp_path / name}") for name in ("hub.json", "own.csv")]
    made = [open_source(ref, Outer(tmp_path / "store"), columns=columns) for ref in refs]
    assert made[0].to_list() == hub
    assert made[1].to_list() == [{"Question": "Q?", "Correct Answers": "7; true", "Incorrect Answers": "null"}]


CELLS = {
    "texts": ["7", "true", None, '"'],
    "numbers": [1, None, -3],
    "kinds": ["7", 7, 7.5, True, None, {"a": 1}, ["7"]],
    "fractions beside numbers": [1, 2.5],
    "numbers of 64 bits": [1, 2**64 - 1],
    "numbers of 64 bits among texts": ["1", 2**64 - 1, -(2**63)],
    "fractions": [0.1234567890123456789, None, 1e300],
    "mappings": [{"text": ["a"], "label": ["A"]}, {"text": [], "label": []}],
    "lists of kinds": [[1, "1"], []],
}


@pytest.mark.parametrize("cells", CELLS.values(), ids=CELLS)
def test_cells_of_a_table_without_a_recipe_are_what_the_file_says(cells, tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"x": cell}) + "\n" for cell in cells))
    made = open_source(parse_reference(f"file:{tmp_path / 'a.jsonl'}"), Outer(tmp_path / "store"))
    assert [(type(cell), cell) for cell in made["x"]] == [(type(cell), cell) for cell in cells]


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([1, 10**30], "column 'x' holds a number of more than 64 bits in row 2 of"),
        ([{"deep": [-(10**30)]}], "column 'x' holds a number of more than 64 bits in row 1 of"),
        (
            ["a", 0.1234567890123456789],
            "column 'x' holds cells of several kinds, and '0.12345678901234568' in row 2; give it one kind",
        ),
    ],
)
def test_a_cell_that_cannot_be_kept_as_it_is_is_named(cells, said, tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"x": cell}) + "\n" for cell in cells))
    with pytest.raises(InputError, match=f"^data.source: {said}"):
        open_source(parse_reference(f"file:{tmp_path / 'a.jsonl'}"), Outer(tmp_path / "store"))


def test_fractions_that_are_no_numbers_are_kept_beside_others(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"x": NaN, "y": 1}\n{"x": 0.5, "y": 2}\n')
    made = open_source(parse_reference(f"file:{tmp_path / 'a.jsonl'}"), Outer(tmp_path / "store"))
    assert (str(made["x"][0]), made["x"][1], made["y"][:]) == ("nan", 0.5, [1, 2])


def test_a_csv_column_of_whole_numbers_is_one_of_numbers_only_where_nothing_is_lost(tmp_path):
    (tmp_path / "a.csv").write_text("label,code,share,yes\n1,007,1.50,True\n,12,2.00,False\n-3,5,0,True\n")
    made = open_source(parse_reference(f"file:{tmp_path / 'a.csv'}"), Outer(tmp_path / "store"))
    assert made["label"][:] == [1, None, -3]
    assert (made["code"][:], made["share"][:]) == (["007", "12", "5"], ["1.50", "2.00", "0"])
    assert made["yes"][:] == ["True", "False", "True"]


def test_many_rows_keep_their_order_over_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "BYTES", 300)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"a": f"{i} " * (i % 9)}) + "\n" for i in range(1500)))
    made = open_source(
        parse_reference(f"file:{tmp_path / 'a.jsonl'}"), Outer(tmp_path / "store"), columns=[Column(("a",))]
    )
    assert made["a"][:] == [f"{i} " * (i % 9) for i in range(1500)]
    assert len(made.data.to_batches()) > 10


def test_a_data_set_that_is_a_script_is_one_line(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("Dataset scripts are no longer supported, but found xsum.py")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(
        InputError, match=r"^score\.tasks\.0\.source: hf:org/xsum@0+ is read by a script of its own, xsum\.py"
    ):
        open_source(parse_reference(f"hf:org/xsum@{'0' * 40}"), Outer(tmp_path / "store"), "score.tasks.0.source")
