"""Odd files: what `kdray check` finds fine is read, exactly, and what it refuses is refused by the reader in the same
words.
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdray.data.look import look_into
from kdray.data.recipes.dolly import dolly
from kdray.data.recipes.pubmed_qa import pubmed_qa
from kdray.data.sources import open_source
from kdray.spec.columns import recipe_columns
from kdray.spec.errors import InputError
from kdray.spec.refs import parse_reference
from kdray.store import Outer

ROW = {"instruction": "a", "context": "", "response": "b"}
GOOD = [("a", "", "b")]
HEAD = "instruction,context,response\n"
BOM = b"\xef\xbb\xbf"


def row(**cells: Any) -> str:
    return json.dumps(ROW | cells) + "\n"


# file: content, and the rows in it or what must be said of it
TEXTS: dict[str, tuple[str, str | bytes, list[tuple[str, str, str]] | str]] = {
    "brackets": ("data[1].jsonl", row(), GOOD),
    "question mark": ("rows?.jsonl", row(), GOOD),
    "star": ("*.jsonl", row(), GOOD),
    "doubled star": ("**.jsonl", row(), GOOD),
    "braces": ("{a,b}.jsonl", row(), GOOD),
    "a chain of fsspec's": ("a::b.jsonl", row(), GOOD),
    "an address": ("hf:x@y.jsonl", row(), GOOD),
    "a space, a mark and a percent": ("a b#c=d&e%20f.jsonl", row(), GOOD),
    "letters": ("zwölf.jsonl", row(), GOOD),
    "capitals": ("A.JSONL", row(), GOOD),
    "compressed": ("a.jsonl.gz", b"\x1f\x8b", "has no known format"),
    "a dot at the end": ("a.jsonl.", row(), "has no known format"),
    "mark in jsonl": ("a.jsonl", BOM + row().encode(), GOOD),
    "mark in a list": ("a.json", BOM + f"\n[{row()}]".encode(), GOOD),
    "mark in csv": ("a.csv", BOM + f"{HEAD}a,,b\n".encode(), GOOD),
    "texts that look like nothing": (
        "a.csv",
        f"{HEAD}null,N/A,None\nNaN,NA,-\n",
        [("null", "N/A", "None"), ("NaN", "NA", "-")],
    ),
    "texts that look like others": (
        "a.csv",
        f"{HEAD}007,1.50,True\n1e5,0x1,2020-01-01\n",
        [("007", "1.50", "True"), ("1e5", "0x1", "2020-01-01")],
    ),
    "a number in JSON's quotes": (
        "a.jsonl",
        row(response="007") + row(response="true"),
        [("a", "", "007"), ("a", "", "true")],
    ),
    "dates in JSON": (
        "a.json",
        json.dumps([ROW | {"response": "2020-01-01T00:00:00"}]),
        [("a", "", "2020-01-01T00:00:00")],
    ),
    "a text behind ten thousand numbers": (
        "a.csv",
        HEAD + "1,,1\n" * 10_001 + "007,x,1.50\n",
        [("1", "", "1")] * 10_001 + [("007", "x", "1.50")],
    ),
    "an unused column that turns to text": ("a.csv", f"x,{HEAD}" + ",a,,b\n" * 3000 + "z,a,,b\n", GOOD * 3001),
    "an unused column of all kinds": (
        "a.jsonl",
        row(x=1) + row(x="1") + row(x={"y": [1]}) + row(x=10**30) + row(y=float("nan")),
        GOOD * 5,
    ),
    "lines in quotes": ("a.csv", f'{HEAD}"a\nb","c,d","e""f"\r\n', [("a\nb", "c,d", 'e"f')]),
    "old ends of lines": ("a.csv", f'{HEAD}a,"b\rc",d\n'.replace("\n", "\r"), [("a", "b\rc", "d")]),
    "a long cell": ("a.csv", f"{HEAD}a,{'b' * 200_000},c\n", [("a", "b" * 200_000, "c")]),
    "a zero byte": ("a.csv", f"{HEAD}a\0b,,c\n", [("a\0b", "", "c")]),
    "blank lines": ("a.csv", f"{HEAD}\na,,b\n  \n\na,,b\n", GOOD * 2),
    "a column twice": (
        "a.csv",
        "instruction,context,response,response\na,,b,c\n",
        "line 1: two columns are called 'response'",
    ),
    "an unused column twice": ("a.csv", "instruction,x,context,x,response\na,1,,2,b\n", GOOD),
    "a cell too many": ("a.csv", f"{HEAD}a,,b\na,,b,c\n", "line 3: 4 cells against 3 in the header"),
    "a cell too few": ("a.csv", f"{HEAD}a,,b\na,b\n", "line 3: 2 cells against 3 in the header"),
    "a quote that stays open": ("a.csv", f'{HEAD}a,,"b\na,,b\n', "unexpected end of data"),
    "text behind a quote": ("a.csv", f'{HEAD}a,,"b"c\n', "line 2: ',' expected after"),
    "semicolons": (
        "a.csv",
        "instruction;context;response\na;;b\n",
        "no column 'instruction' in .*: a single one, so write commas",
    ),
    "a header alone": ("a.csv", HEAD, "has no rows"),
    "another encoding": (
        "a.csv",
        f"{HEAD}a,,b\né,,b\n".encode("latin-1"),
        "line 3: invalid continuation byte in UTF-8",
    ),
    "sixteen bits, csv": ("a.csv", f"{HEAD}a,,b\n".encode("utf-16"), "line 1: invalid start byte in UTF-8"),
    "sixteen bits, json": ("a.json", f"[{row()}]".encode("utf-16"), "line 1: invalid start byte in UTF-8"),
    "another encoding in a list": (
        "a.json",
        f"[\n{json.dumps(ROW | {'response': 'é'}, ensure_ascii=False)}]".encode("latin-1"),
        "line 2: invalid",
    ),
    "a number among texts": ("a.jsonl", row() * 2 + row(response=5), "column 'response' holds the int 5 in row 3 of"),
    "a list among texts": ("a.jsonl", row() + row(response=["b"]), "column 'response' holds a list in row 2 of"),
    "a mapping among texts": (
        "a.jsonl",
        row() + row(response={"b": 1}),
        "column 'response' holds a mapping in row 2 of",
    ),
    "a truth value among texts": (
        "a.jsonl",
        row() + row(context=True),
        "column 'context' holds the bool True in row 2 of",
    ),
    "no number": ("a.jsonl", row() + row(context=float("nan")), "column 'context' holds the float nan in row 2 of"),
    "nothing": ("a.jsonl", row(context=None) + row(), GOOD * 2),
    "a column that comes late": ("a.jsonl", '{"instruction": "a", "response": "b"}\n' * 300 + row(), GOOD * 301),
    "a column that never comes": (
        "a.jsonl",
        '{"instruction": "a", "response": "b"}\n',
        "no column 'context' in .*; it has instruction, response",
    ),
    "half a character": (
        "a.jsonl",
        row() + row(response="\ud800"),
        "column 'response' holds half a character in row 2 of",
    ),
    "both halves": ("a.jsonl", row(response="\U0001f600"), [("a", "", "\U0001f600")]),
    "a name twice": (
        "a.jsonl",
        '{"instruction": "a", "context": "", "response": "b", "response": "c"}',
        "line 1: 'response' twice",
    ),
    "a number without end": ("a.jsonl", '{"x": ' + "1" * 5000 + "}", "line 1: Exceeds the limit"),
    "nested without end": ("a.json", "[" * 100_000, "is damaged"),
    "a list over many lines": ("a.json", json.dumps([ROW] * 2, indent=2), GOOD * 2),
    "one object over many lines": ("a.json", json.dumps(ROW, indent=2), "line 1: Expecting property name"),
    "a list that goes on": ("a.json", f"[{row()}] 5", "line 2: something behind the list"),
    "a list that is cut": ("a.json", f"[{row()},", "line 2: Expecting value"),
    "a list without a comma": ("a.json", f"[{row()}{row()}]", "line 2: '{' where a comma or ] should be"),
    "damage in a list": ("a.json", f"[{row()},\n{{'a': 1}},\n{row()}]", "line 3: Expecting property name"),
    "an empty list": ("a.json", " [ ]\n", "has no rows"),
    "a row cut off": ("a.jsonl", row() + '{"instruction": ', "line 2: Expecting value"),
    "no objects": ("a.jsonl", "1\n", "line 1: a row is no object"),
    "columns of lists": (
        "a.json",
        json.dumps({name: [cell] for name, cell in ROW.items()}),
        "column 'instruction' holds a list in row 1",
    ),
}


def verdict(path: Path, recipe: Any, read: bool) -> Any:
    """What is said of a file as `data.source`; nothing, or if `read` the rows, where it is fine."""
    ref, columns = parse_reference(f"file:{path}", "data.source"), recipe_columns(recipe.__name__, {})
    try:
        if not read:
            return look_into(ref, "data.source", columns)
        return [
            tuple(recipe(row).__dict__.values())
            for row in open_source(ref, Outer(path.parent / "store"), columns=columns)
        ]
    except InputError as error:
        return str(error)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "zip"])
@pytest.mark.parametrize(("name", "content", "wanted"), TEXTS.values(), ids=[name.replace(" ", "-") for name in TEXTS])
def test_check_and_reader_agree(name: str, content: str | bytes, wanted: Any, packed: bool, tmp_path: Path) -> None:
    for other in ("data1.jsonl", "rowsX.jsonl", "other.jsonl"):
        (tmp_path / other).write_text(row(response="another file's"))
    raw, path = content if isinstance(content, bytes) else content.encode(), tmp_path / name
    if packed:
        path = tmp_path / "packed.ZIP"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, raw)
            archive.writestr(f"__MACOSX/._{name}", "no table")
    else:
        path.write_bytes(raw)
    checked, read = verdict(path, dolly, read=False), verdict(path, dolly, read=True)
    if isinstance(wanted, str):
        assert checked == read
        assert re.search("holds 0 tables" if packed and "format" in wanted else wanted, read)
    else:
        assert checked is None
        assert read == wanted


PUBMED = {"question": "a", "context": {"contexts": ["b"], "labels": [1]}, "long_answer": "c"}
NESTED: dict[str, tuple[list[Any], list[tuple[str, str, str]] | str]] = {
    "a key of other kinds": (
        [PUBMED, PUBMED | {"context": {"contexts": ["b"], "labels": {"x": 10**30}}}],
        [("a", "b", "c")] * 2,
    ),
    "a key that comes late": (
        [PUBMED, PUBMED | {"context": {"contexts": ["b", "d"], "new": "x"}}],
        [("a", "b", "c"), ("a", "b\nd", "c")],
    ),
    "no list": (
        [PUBMED, PUBMED | {"context": {"contexts": "b"}}],
        "'context' holds a mapping of contexts: a text in row 2",
    ),
    "a list of numbers": (
        [PUBMED, PUBMED | {"context": {"contexts": ["b", 1]}}],
        "'context' holds a mapping of contexts: a list in row 2",
    ),
    "no key": ([PUBMED, PUBMED | {"context": {"labels": [1]}}], "'context' holds a mapping of labels: a list in row 2"),
    "no mapping": ([PUBMED, PUBMED | {"context": "b"}], "'context' holds a text in row 2"),
    "nothing in its place": ([PUBMED, PUBMED | {"context": None}], "'context' holds nothing in row 2"),
    "half a character inside": (
        [PUBMED, PUBMED | {"context": {"contexts": ["\ud800"]}}],
        "'context' holds half a character in row 2",
    ),
}


@pytest.mark.parametrize(("rows", "wanted"), NESTED.values(), ids=[name.replace(" ", "-") for name in NESTED])
def test_check_and_reader_agree_on_what_is_nested(rows: list[Any], wanted: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))
    checked, read = verdict(path, pubmed_qa, read=False), verdict(path, pubmed_qa, read=True)
    if isinstance(wanted, str):
        assert checked == read
        assert wanted in read
    else:
        assert (checked, read) == (None, wanted)


def test_a_dot_in_a_name_that_the_user_gives_is_part_of_it(tmp_path: Path) -> None:
    path, columns = (
        tmp_path / "a.jsonl",
        recipe_columns("columns", {"response": "a.b", "instruction": None, "context": None}),
    )
    ref = parse_reference(f"file:{path}", "data.source")
    path.write_text('{"a.b": "text"}')
    look_into(ref, "data.source", columns)
    assert open_source(ref, Outer(tmp_path / "store"), columns=columns).to_list() == [{"a.b": "text"}]
    path.write_text('{"a": {"b": "text"}}')
    for read in (
        lambda: look_into(ref, "data.source", columns),
        lambda: open_source(ref, Outer(tmp_path / "store"), columns=columns),
    ):
        with pytest.raises(InputError, match=r"no column 'a\.b' in"):
            read()


TEXT, WORDS = pa.array(["a", "b", None]), pa.array(["a", "b", None]).dictionary_encode()
PARQUET: dict[str, tuple[dict[str, Any], Any]] = {
    "texts": ({"instruction": TEXT}, None),
    "large texts": ({"instruction": TEXT.cast(pa.large_string())}, None),
    "categories": ({"instruction": WORDS}, None),
    "nothing at all": ({"context": pa.nulls(3)}, None),
    "numbers": ({"response": pa.array([1, 2, 3])}, "column 'response' holds int64 in .*; it must hold text"),
    "bytes": ({"response": pa.array([b"a", b"b", b"c"])}, "column 'response' holds binary in"),
    "lists": ({"response": pa.array([["a"], [], None])}, "column 'response' holds list<"),
    "unused numbers": ({"x": pa.array([1, 2, 3])}, None),
    "no column": ({"context": None}, "no column 'context' in .*; it has instruction, response"),
}


@pytest.mark.parametrize(("changes", "wanted"), PARQUET.values(), ids=[name.replace(" ", "-") for name in PARQUET])
def test_check_and_reader_agree_on_parquet(changes: dict[str, Any], wanted: str | None, tmp_path: Path) -> None:
    columns = {name: column for name, column in (dict.fromkeys(ROW, TEXT) | changes).items() if column is not None}
    pq.write_table(pa.table(columns), path := tmp_path / "a[1].parquet")
    checked, read = verdict(path, dolly, read=False), verdict(path, dolly, read=True)
    if wanted:
        assert checked == read
        assert re.search(wanted, read)
    else:
        assert checked is None
        expected = [[text or "" for text in columns[name].to_pylist()] for name in ROW]
        assert read == list(zip(*expected, strict=True))


def test_damage_inside_of_a_parquet_file_is_one_line(tmp_path: Path) -> None:
    pq.write_table(
        pa.table(dict.fromkeys(ROW, pa.array(["some text"] * 500))),
        path := tmp_path / "a.parquet",
        use_dictionary=False,
    )
    content = path.read_bytes()
    path.write_bytes(content[:10] + b"\xff" * 40 + content[50:])
    assert "a.parquet is damaged (" in verdict(path, dolly, read=True)
    path.write_bytes(content[:-1])
    assert verdict(path, dolly, read=False).endswith(
        "a.parquet is no whole Parquet file, whatever its name; fetch it again"
    )
    path.write_bytes(b"PAR1" + bytes(40) + b"PAR1")
    assert "a.parquet is damaged (" in verdict(path, dolly, read=False)


def test_a_zip_with_a_password_is_refused_by_both(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.jsonl", row())
    content = bytearray((tmp_path / "a.zip").read_bytes())
    for place in (content.index(b"PK\3\4") + 6, content.index(b"PK\1\2") + 8):
        content[place] |= 1  # "encrypted"
    (tmp_path / "a.zip").write_bytes(content)
    checked = verdict(tmp_path / "a.zip", dolly, read=False)
    assert checked == verdict(tmp_path / "a.zip", dolly, read=True)
    assert "a.zip is no zip archive that can be read" in checked
