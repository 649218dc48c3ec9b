"""Annotated responses: offsets, quotations, documents that are the same, file formats."""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdray.lens.annotations import Annotated, Documents, sketch, statistics
from kdray.lens.sources.jsonl import jsonl, write_jsonl
from kdray.spec import declare
from kdray.spec.components import components
from kdray.spec.errors import InputError

ARTICLE = " ".join(f"The {i}th lorry left Dover at {i} o'clock, and nobody knew why it had come." for i in range(30))


def read(name: str, path: Path) -> list[Annotated]:
    return list(getattr(importlib.import_module(f"kdray.lens.sources.{name}"), name)(path))


@pytest.mark.parametrize("span", [(-1, 3), (4, 4), (5, 4), (0, 6)])
def test_offsets_outside_the_text_are_refused(span: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"annotations 'a': a span \[.*\) in a response of 5 characters"):
        Annotated("a", "text", "Hello", (span,))


def test_quotations_become_all_their_places_and_lost_ones_are_kept_as_such() -> None:
    row = Annotated("a", "text", "In Rome, not in rome. In Rome").with_quotes([" Rome ", "Paris", ""])
    assert row.spans == ((3, 7), (25, 29))
    assert row.unfound == ("Paris",)
    numbers = statistics([row, Annotated("b", "text", "Fine."), Annotated("c", "other", "Lost.", unfound=("x",))])
    assert numbers == {"examples": 3, "documents": 2, "correct": pytest.approx(100 / 3), "spans": 2, "unfound": 2}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (str.upper, True),
        (lambda text: "A sentence that was put before it. " + text, True),
        (lambda text: text[: len(text) // 2], True),
        (lambda text: text.replace("Dover", "Calais").replace("lorry", "train"), False),
        (lambda text: "What it says below the video. " * 3 + "Something else altogether. " * 40, False),
    ],
)
def test_a_document_is_the_same_however_it_is_printed(change: Callable[[str], str], same: bool) -> None:
    assert (change(ARTICLE) in Documents([sketch(ARTICLE), sketch("Another text.")])) is same
    assert (sketch(change(ARTICLE)) in Documents([sketch(ARTICLE), sketch("Another text.")])) is same
    assert "" not in Documents([sketch(ARTICLE)])


def test_short_documents_are_compared_too() -> None:
    known = Documents([sketch("It rained all day.")])
    assert "it rained ALL day" in known
    assert "It rained all night." not in known


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_formats(tmp_path: Path) -> None:
    assert set(components(declare.Annotations)) == {"jsonl", "faithbench", "qags", "ragtruth", "xsum_hallucination"}
    own = {
        "id": 7,
        "document": "D",
        "response": "abcdef",
        "spans": [[4, 6], [0, 1]],
        "after": "\nSummary:",
        "output_ids": [1, 2],
    }
    [row] = read("jsonl", write(tmp_path / "own.jsonl", [own]))
    assert (row.id, row.spans, row.prompt, row.output_ids) == ("7", ((0, 1), (4, 6)), ("", "\nSummary:"), (1, 2))

    spans = [
        {"start": 0, "end": 2, "label": ["Unwanted", "Unwanted.Intrinsic"]},
        {"start": 0, "end": 2, "label": ["Unwanted.Extrinsic"]},
        {"start": 3, "end": 4, "label": ["Benign"]},
    ]
    rows = [{"id": "f", "source": "S", "summary": "abcdef", "spans": spans, "metadata": {"summarizer": "m"}}]
    [row] = read("faithbench", write(tmp_path / "f.jsonl", rows))
    assert (row.spans, row.writer) == (((0, 2),), "m")

    said = [{"sentence": "One.", "faithful": True}, {"sentence": "Two!", "faithful": False}]
    [row] = read("qags", write(tmp_path / "q.jsonl", [{"id": "q", "article": "A", "sentences": said}]))
    assert row.response[slice(*row.spans[0])] == "Two!"

    write(
        tmp_path / "source_info.jsonl",
        [{"source_id": "s", "source_info": "The text.", "prompt": "Read: The text. Answer:"}],
    )
    label = {"start": 1, "end": 3, "label_type": "Evident Conflict"}
    [row] = read(
        "ragtruth", write(tmp_path / "r.jsonl", [{"id": "1", "source_id": "s", "response": "abcd", "labels": [label]}])
    )
    assert (row.document, row.prompt, row.spans) == ("The text.", ("Read: ", " Answer:"), ((1, 3),))


def test_xsum_annotators_vote_and_wrong_offsets_are_looked_for(tmp_path: Path) -> None:
    write(tmp_path / "xsum.jsonl", [{"id": "11", "document": "The article."}])
    columns = [
        "bbcid",
        "system",
        "summary",
        "hallucination_type",
        "hallucinated_span",
        "hallucinated_span_start",
        "worker_id",
    ]
    marks = [
        ("extrinsic", "bad", 2, "w1"),
        ("intrinsic", "bad end", 9, "w2"),
        ("NULL", "NULL", -1, "w3"),
        ("extrinsic", "gone", 0, "w3"),
    ]
    with (tmp_path / "x.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(
            [["11", "bert", "a bad end", kind, quote, start, worker] for kind, quote, start, worker in marks]
        )
        writer.writerow(["12", "bert", "no article", "NULL", "", -1, "w1"])
    [row] = read("xsum_hallucination", tmp_path / "x.csv")
    assert (row.id, row.spans, row.unfound) == ("11-bert", ((2, 5),), ("gone",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", None),
        ("{", "line 1 of x.jsonl is no JSON"),
        ('{"id": 1}', "line 1 of x.jsonl has no 'document'"),
        ("[]", "has no 'id'"),
    ],
)
def test_damaged_files(tmp_path: Path, text: str, message: str | None) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    if message is None:
        assert read("jsonl", tmp_path / "x.jsonl") == []
        return
    with pytest.raises(InputError, match=message):
        read("jsonl", tmp_path / "x.jsonl")


def test_a_mark_that_some_programs_put_first_is_no_part_of_a_file(tmp_path: Path) -> None:
    plain = read("jsonl", write(tmp_path / "x.jsonl", [OWN]))
    (tmp_path / "marked[1].jsonl").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "x.jsonl").read_bytes())
    assert read("jsonl", tmp_path / "marked[1].jsonl") == plain != []
    write(tmp_path / "xsum.jsonl", [{"id": "11", "document": "The article."}])
    columns = "bbcid,system,summary,hallucination_type,hallucinated_span,hallucinated_span_start,worker_id"
    (tmp_path / "x.csv").write_text(f"\ufeff{columns}\n11,bert,a bad end,extrinsic,bad,2,w1\n", encoding="utf-8")
    assert [row.spans for row in read("xsum_hallucination", tmp_path / "x.csv")] == [((2, 5),)]


OWN = {"id": 1, "document": "D", "response": "abcdef", "spans": []}
FAITH = {"id": "f", "source": "S", "summary": "abc", "spans": [{"start": 0, "end": 2, "label": ["Unwanted"]}]}
RAG = {"id": "1", "source_id": "s", "response": "abcd", "labels": []}
SOURCE = {"source_id": "s", "source_info": "The text.", "prompt": "Read: The text. Answer:"}
WRONG: list[tuple[str, dict[str, Any]]] = [
    *(("jsonl", OWN | {"document": value}) for value in (None, 5, [], "\ud800")),
    *(("jsonl", OWN | {"response": value}) for value in (None, 5)),
    *(
        ("jsonl", OWN | {"spans": [span]})
        for span in (5, [1], [1, 2, 3], ["a", "b"], [None, 2], [1.5, 2.5], [True, 2], "12")
    ),
    *(("jsonl", OWN | {"spans": value}) for value in (None, 5, {"a": 1}, {}, "")),
    *(("jsonl", OWN | {"input_ids": value}) for value in (5, ["a"], [-1], [2**40])),
    *(
        ("jsonl", OWN | change)
        for change in ({"before": 5, "after": ""}, {"after": 5}, {"unfound": 5}, {"unfound": "Rome"}, {"writer": 5})
    ),
    *(("faithbench", FAITH | {"spans": value}) for value in (None, [{}], [5], [{"start": 0, "end": 2, "label": None}])),
    *(("faithbench", FAITH | {"spans": [{"start": start, "end": 2, "label": ["Unwanted"]}]}) for start in ("0", None)),
    ("faithbench", FAITH | {"spans": [{"start": 0, "end": 2, "label": "Unwanted"}]}),
    ("faithbench", FAITH | {"metadata": 5}),
    *(
        ("qags", {"id": 1, "article": "A", "sentences": value})
        for value in (5, ["x"], [{"sentence": "S."}], [{"sentence": None, "faithful": True}])
    ),
    *(("ragtruth", RAG | change) for change in ({"labels": None}, {"labels": [{}]}, {"source_id": []}, {"model": 5})),
]


@pytest.mark.parametrize(("name", "row"), WRONG)
def test_wrong_types_are_said_with_their_line(tmp_path: Path, name: str, row: dict[str, Any]) -> None:
    write(tmp_path / "source_info.jsonl", [SOURCE])
    with pytest.raises(InputError, match=r"^annotations: line 1 of x\.jsonl: .+; see docs/lens\.md$"):
        read(name, write(tmp_path / "x.jsonl", [row]))


@pytest.mark.parametrize("change", [{"source_info": 5}, {"prompt": None}, {"source_id": []}])
def test_wrong_sources_are_said_with_their_line(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path / "source_info.jsonl", [SOURCE | change])
    with pytest.raises(InputError, match=r"annotations: line 1 of source_info\.jsonl: "):
        read("ragtruth", write(tmp_path / "x.jsonl", [RAG]))


@pytest.mark.parametrize("content", [b'{"id": "\xff"}', b"[" * 100_000, b'{"id": ' + b"1" * 5000 + b"}"])
def test_lines_that_cannot_be_parsed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"\n" + content)
    with pytest.raises(InputError, match=r"annotations: line 2 of x\.jsonl"):
        read("jsonl", tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    "row", ["11,bert,text,extrinsic,bad,NULL,w1", "11,bert,text,extrinsic,bad,,w1", "11,bert", "\x00\xff,"]
)
def test_wrong_rows_of_xsum_annotations(tmp_path: Path, row: str) -> None:
    write(tmp_path / "xsum.jsonl", [{"id": "11", "document": "The article."}])
    with pytest.raises(InputError, match="annotations: no file"):
        read("xsum_hallucination", tmp_path / "x.csv")
    columns = "bbcid,system,summary,hallucination_type,hallucinated_span,hallucinated_span_start,worker_id"
    (tmp_path / "x.csv").write_text(f"{columns}\n{row}\n", encoding="latin-1")
    with pytest.raises(InputError, match=r"annotations: (line 2 of )?x\.csv"):
        read("xsum_hallucination", tmp_path / "x.csv")


def test_null_is_as_good_as_absent_where_a_field_is_optional(tmp_path: Path) -> None:
    optional = dict.fromkeys(("before", "after", "input_ids", "output_ids", "unfound", "writer"))
    assert read("jsonl", write(tmp_path / "x.jsonl", [OWN | optional])) == read(
        "jsonl", write(tmp_path / "y.jsonl", [OWN])
    )
    assert read("faithbench", write(tmp_path / "f.jsonl", [FAITH | {"metadata": None}]))[0].writer == ""


@pytest.mark.slow
@pytest.mark.realdata
def test_real_annotations_fit_their_texts(data_dir: Path) -> None:
    faithbench, qags = read("faithbench", data_dir / "faithbench.jsonl"), read("qags", data_dir / "qags.jsonl")
    assert (len(faithbench), statistics(faithbench)["documents"]) == (375, 31)
    assert (len(qags), statistics(qags)["spans"]) == (474, 306)
    articles = [json.loads(line)["article"] for line in (data_dir / "cnn_dailymail.jsonl").read_text().splitlines()]
    trained_on = Documents(sketch(row.document) for row in qags)
    assert (
        sum(article in trained_on for article in articles) == 235
    )  # its test rows are QAGS's; its training rows are not


def test_our_own_format_gives_back_what_it_was_given(tmp_path: Path) -> None:
    rows = [
        Annotated(
            "1", "Ada is in Oslo.", "Ada is in Rome.", ((10, 14),), input_ids=(1, 2, 3), output_ids=(4, 5), writer="it"
        ),
        Annotated("2", "Ada is in Oslo.", "Ada is.", unfound=("Rome",), prompt=("Read: ", "\nSummary:")),
    ]
    write_jsonl(rows, tmp_path / "own.jsonl")
    assert list(jsonl(tmp_path / "own.jsonl")) == rows
    with pytest.raises(AttributeError):
        write_jsonl([rows[0], None], tmp_path / "own.jsonl")  # pyright: ignore[reportArgumentType]
    assert list(jsonl(tmp_path / "own.jsonl")) == rows
