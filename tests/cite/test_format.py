"""Citations as they are written and read: examples of each finding, and that any text is read without losing a word."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdray.cite.format import TAG, Span, Statement, number, parse, parse_cites, write
from tests.mutations import DAMAGED

TAGS = ["<statement>", "</statement>", "<cite>", "</cite>"]
PIECES = st.lists(
    st.sampled_from([*TAGS, " ", "\n", "It rained.", "[1-2]", "[3]", "[4-2]", "[2-99]", "<C1>", "[", "]", "-", "0"])
    | st.text(max_size=8),
    max_size=25,
).map("".join)
WORDS = (
    st.text(min_size=1).map(lambda text: TAG.sub("", text).strip()).filter(lambda text: text and not TAG.search(text))
)
SPANS = st.tuples(st.integers(1, 9), st.integers(0, 3)).map(lambda pair: Span(pair[0], min(pair[0] + pair[1], 9)))
STATEMENTS = st.lists(st.builds(Statement, WORDS, st.lists(SPANS, max_size=3).map(tuple)), max_size=4)


def test_sentences_have_marks_from_1() -> None:
    assert number(["It rained.", "All day."]) == "<C1>It rained. <C2>All day."


def test_an_answer_as_it_should_be() -> None:
    found = parse(
        "<statement>It rained. <cite>[1-1][3-4]</cite></statement>\n<statement> Dry. <cite></cite></statement>", 4
    )
    assert found.statements == (Statement("It rained.", (Span(1, 1), Span(3, 4))), Statement("Dry."))
    assert found.findings == ()
    assert found.statements[0].sentences == [0, 2, 3]
    assert Statement("x", (Span(2, 3), Span(1, 2))).sentences == [0, 1, 2]


@pytest.mark.parametrize(
    ("answer", "statements", "kinds"),
    [
        ("Dry.", [Statement("Dry.")], ["outside"]),
        ("Dry. <cite>[2-2]</cite>", [Statement("Dry.", (Span(2, 2),))], ["outside"]),
        (
            "<statement>Dry. <cite>[1-",
            [Statement("Dry.")],
            ["unreadable_citation", "unclosed_cite", "unclosed_statement"],
        ),
        ("<statement>Dry. <cite>[1-1]</statement>", [Statement("Dry.", (Span(1, 1),))], ["unclosed_cite"]),
        ("<statement>A.<statement>B.</statement>", [Statement("A."), Statement("B.")], ["unclosed_statement"]),
        ("<statement>A.</cite></statement></statement>", [Statement("A.")], ["stray_tag", "stray_tag"]),
        ("<statement>A. <cite></cite> B.</statement>", [Statement("A."), Statement("B.")], ["outside"]),
        (
            "<statement>A. <cite>[1-1]</cite><cite>[2-2]</cite></statement>",
            [Statement("A.", (Span(1, 1), Span(2, 2)))],
            ["second_cite"],
        ),
        ("<statement> <cite>[1-1]</cite></statement>", [], ["empty_statement"]),
        ("<cite>[1-1]</cite>", [], ["outside", "empty_statement"]),
        ("", [], []),
    ],
)
def test_what_is_wrong_with_an_answer_is_said(answer: str, statements: list[Statement], kinds: list[str]) -> None:
    found = parse(answer, 3)
    assert list(found.statements) == statements
    assert [finding.kind for finding in found.findings] == kinds


@pytest.mark.parametrize(
    ("text", "spans", "kinds"),
    [
        ("[1-2] [3 - 3]", [Span(1, 2), Span(3, 3)], []),
        ("[2]", [Span(2, 2)], []),
        ("[2-9]", [Span(2, 3)], ["beyond_document"]),
        ("[0-1]", [Span(1, 1)], ["beyond_document"]),
        ("[4-9]", [], ["beyond_document"]),
        ("[3-1]", [], ["backwards"]),
        ("see [1-1], [x]", [Span(1, 1)], ["unreadable_citation", "unreadable_citation"]),
        (f"[1-{'9' * 5000}]", [], ["unreadable_citation"]),
        ("[\u0661-\u0662]", [], ["unreadable_citation"]),
    ],
)
def test_what_is_wrong_with_citations_is_said(text: str, spans: list[Span], kinds: list[str]) -> None:
    found, findings = parse_cites(text, 3)
    assert list(found) == spans
    assert [finding.kind for finding in findings] == kinds


def test_findings_are_counted() -> None:
    assert parse("<statement>A. <cite>[9-9][8-8][2-1]</cite></statement>", 3).counts == {
        "beyond_document": 2,
        "backwards": 1,
    }


@DAMAGED
@given(PIECES, st.integers(0, 5))
def test_any_text_is_read_and_no_word_is_lost(answer: str, n_sentences: int) -> None:
    found = parse(answer, n_sentences)
    said = "".join(statement.text for statement in found.statements)
    told = "".join(finding.text for finding in found.findings)
    for place, piece in enumerate(TAG.split(answer)):
        if not TAG.fullmatch(piece) and not re.search("<cite>[^<]*$", "".join(TAG.split(answer)[:place])):
            assert "".join(piece.split()) in "".join((said + told).split())
    assert all(1 <= span.first <= span.last <= n_sentences for each in found.statements for span in each.cites)
    assert all(statement.text for statement in found.statements)
    again = parse(write(found.statements), n_sentences)
    assert again.statements == found.statements
    assert again.findings == ()


@DAMAGED
@given(STATEMENTS)
def test_what_is_written_is_read_again(statements: list[Statement]) -> None:
    found = parse(write(statements), 9)
    assert list(found.statements) == statements
    assert found.findings == ()
