"""Reading text tables in pieces: whatever the size of a piece, the same rows, and the same line is named."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from kdray.spec.columns import Column
from kdray.spec.errors import InputError
from kdray.store import json_text, records
from kdray.store.records import Records

ROWS: list[dict[str, Any]] = [
    {"a": "zwölf \U0001f600", "n": 12345},
    {"a": 'a "b" [c] {d}, \\', "n": [1, {"x": None}]},
    {"a": "", "n": -0.5},
]


def read(content: bytes, suffix: str, *names: str) -> list[dict[str, Any]]:
    file = io.BufferedReader(io.BytesIO(content), records.CHUNK)  # type: ignore[arg-type]
    columns = [Column((name,), holds="anything") for name in names]
    return list(Records(file, suffix, columns, "file", "field"))


@pytest.mark.parametrize("size", range(1, 40))
@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_is_read_in_pieces_of_any_size(size: int, indent: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (records, json_text):
        monkeypatch.setattr(module, "CHUNK", size)
    content = json.dumps(ROWS, ensure_ascii=False, indent=indent).encode()
    head = b"" if size < 4 else b"\xef\xbb\xbf"  # the first look must see what is behind the mark
    assert read(head + content, ".json") == ROWS
    broken = json.dumps(ROWS, indent=1).replace('"n": -0.5', '"n": -')
    with pytest.raises(InputError, match=f"line {broken[: broken.index('-')].count(chr(10)) + 1}: "):
        read(broken.encode(), ".json")


def test_damage_is_not_waited_out_to_the_end_of_a_long_list(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (records, json_text):
        monkeypatch.setattr(module, "CHUNK", 64)
    monkeypatch.setattr(json_text, "LONGEST", 1000)
    content = b'[{"a": 1},\n{"a": "' + b"x" * 100_000
    file = io.BufferedReader(raw := io.BytesIO(content), 64)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="line 2: Unterminated string"):
        list(Records(file, ".json", [], "file", "field"))
    assert raw.tell() < 5000


def test_a_row_has_what_it_has_of_the_columns_and_no_others() -> None:
    assert read(b'{"a": 1, "b": 2}\n\n{"b": null, "c": 3}\n', ".jsonl", "a", "b") == [{"a": 1, "b": 2}, {"b": None}]
    assert read(b"a,b,c\n1,2,3\n", ".csv", "c", "a") == [{"c": "3", "a": "1"}]


def test_keys_of_one_column_come_together() -> None:
    columns = [Column(("context",), "title", "texts"), Column(("context",), "lines", "texts")]
    context = {"title": ["A"], "lines": [["b", "c"]], "more": 5}
    file = io.BufferedReader(io.BytesIO(json.dumps({"context": context}).encode()))  # type: ignore[arg-type]
    assert list(Records(file, ".jsonl", columns, "file", "field")) == [
        {"context": {"title": ["A"], "lines": [["b", "c"]]}}
    ]
