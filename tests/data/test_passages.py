"""Contexts in pieces: every form of a list of passages is the same text, from every format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdray.data.look import look_into
from kdray.data.recipes.columns import columns
from kdray.data.sources import open_source
from kdray.spec.columns import recipe_columns
from kdray.spec.errors import InputError
from kdray.spec.refs import parse_reference
from kdray.store import Outer

NAMED = {"response": "answer", "instruction": "question", "context": "docs", "ask": ""}
PLAIN = ["Ada is in Paris.", " ", "Ben is in Rome.\n"]
TITLED = [
    {"title": "Ada", "text": "Ada is in Paris."},
    {"title": "", "text": ""},
    {"title": None, "text": "Ben is in Rome."},
]
FORMS: dict[str, tuple[Any, str]] = {
    "a text": ("Ada is in Paris.", "Ada is in Paris."),
    "texts": (PLAIN, "Ada is in Paris.\nBen is in Rome."),
    "with titles": (TITLED, "Ada: Ada is in Paris.\nBen is in Rome."),
    "as lists of both": (
        {name: [one[name] for one in TITLED] for name in ("title", "text")},
        "Ada: Ada is in Paris.\nBen is in Rome.",
    ),
    "none": ([], ""),
    "nothing": (None, ""),
}


def row(docs: Any) -> dict[str, Any]:
    return {"question": "Who?", "docs": docs, "answer": "Ada"}


def contexts(path: Path, folder: Path) -> list[str]:
    """What the recipe makes of the rows of a file, read as a run reads it, once the check has nothing against it."""
    ref, wanted = parse_reference(f"file:{path}"), recipe_columns("columns", NAMED)
    look_into(ref, "data.source", wanted)
    return [columns(dict(each), **NAMED).context for each in open_source(ref, Outer(folder / "store"), columns=wanted)]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_text(form: str, kind: str, tmp_path: Path) -> None:
    docs, text = FORMS[form]
    path, rows = tmp_path / f"rows.{kind}", [row(docs), row(docs)]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps(rows) if kind == "json" else "".join(json.dumps(each) + "\n" for each in rows))
    assert contexts(path, tmp_path) == [text, text]


def test_texts_and_lists_may_stand_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row(docs)) + "\n" for docs, _ in FORMS.values()))
    assert contexts(path, tmp_path) == [text for _, text in FORMS.values()]


@pytest.mark.parametrize(
    ("docs", "said"),
    [
        ([1], "column 'docs' holds a list in row 2"),
        ([{"title": "Ada"}], "column 'docs' holds a list in row 2"),
        ([["Ada"]], "column 'docs' holds a list in row 2"),
        ([{"text": ["Ada"]}], "column 'docs' holds a list in row 2"),
        ({"text": ["a", "b"], "title": ["one"]}, "column 'docs' holds a mapping in row 2"),
        ({"text": "a"}, "column 'docs' holds a mapping in row 2"),
        (3, "column 'docs' holds the int 3 in row 2"),
    ],
)
def test_what_cannot_be_joined_is_one_line_before_any_work(docs: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row(each)) + "\n" for each in (PLAIN, docs)))
    with pytest.raises(InputError) as caught:
        contexts(path, tmp_path)
    assert said in str(caught.value)
    assert "it must hold text, or a list of passages" in str(caught.value)
    with pytest.raises(InputError, match="it must hold text, or a list of passages"):
        columns(row(docs), **NAMED)


@pytest.mark.parametrize("docs", [[1], [{"title": "Ada"}], [["Ada"]], {"text": "a"}, 3])
def test_a_parquet_column_of_another_kind_is_refused(docs: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([row(docs)]), path)
    with pytest.raises(InputError, match=r"column 'docs' holds .* it must hold text, or a list of passages"):
        contexts(path, tmp_path)


def test_only_the_context_may_be_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row(PLAIN) | {"answer": ["Ada"]}) + "\n")
    with pytest.raises(InputError, match=r"column 'answer' holds a list in row 1 .*it must hold text"):
        contexts(path, tmp_path)
