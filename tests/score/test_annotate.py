"""Hallucinated spans by metrics: named ones, sentences with low scores, and what cannot be said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from kdray.score.annotate import annotate, sentence_spans
from kdray.score.answers import Answer


def row(example: int, answer: str, **changes: Any) -> dict[str, Any]:
    fields = {"question": "", "references": [], "wrong": [], "source": "It rained.", "error": None}
    return fields | {"example": example, "answer": answer, "input_ids": [1, 2], "output_ids": [3, example]} | changes


def test_sentences_are_judged_one_by_one_each_against_its_own_source() -> None:
    seen: list[tuple[str, str]] = []

    def support(answers: Sequence[Answer]) -> list[dict[str, float]]:
        seen.extend((answer.text, answer.source) for answer in answers)
        return [{"support": 0.1 if "Snow" in answer.text else 0.9} for answer in answers]

    rows = [row(4, "Snow fell. Snow lay."), row(7, "Rain. Snow fell! Rain.", source="It poured.")]
    first, second = annotate(rows, support, "support_standin", 0.5)
    assert seen[:2] == [("Snow fell.", "It rained."), ("Snow lay.", "It rained.")]
    assert seen[2] == ("Rain.", "It poured.")
    assert (first.id, first.spans, first.output_ids) == ("4", ((0, 10), (11, 20)), (3, 4))
    assert (second.document, second.spans) == ("It poured.", ((6, 16),))


def test_a_metric_that_names_spans_is_taken_at_its_word_and_one_that_only_objects_is_unfound() -> None:
    said = [
        {"judge": 100.0, "spans": []},
        {"judge": 0.0, "spans": [[3, 7]]},
        {"judge": 0.0, "spans": []},
        {"error": "judge: no conclusion"},
    ]
    found = annotate([row(i, "In Rome.") for i in range(4)], lambda answers: said, "judge", 50.0)
    assert [(each.id, each.spans, bool(each.unfound)) for each in found] == [("0", (), False), ("1", ((3, 7),), False), ("2", (), True)]


def test_what_has_no_word_or_no_source_is_left_out() -> None:
    rows = [row(0, ""), row(1, "Rain.", source=""), row(2, "Rain.", error="out of memory"), row(3, "Rain.")]
    assert [each.id for each in annotate(rows, lambda answers: [{"support": 1.0}], "support_standin", 0.5)] == ["3"]


def test_a_metric_that_always_fails_says_why() -> None:
    with pytest.raises(ValueError, match="no answer could be annotated: the server is gone"):
        annotate([row(0, "Rain.")], lambda answers: [{"error": "the server is gone"}], "judge", 0.5)


def test_spans_of_sentences_are_those_of_the_text() -> None:
    text = 'Mr. Bo paid 3.5 dollars. "Really?" She said\nNo full stop'
    assert [text[begin:end] for begin, end in sentence_spans(text)] == ["Mr. Bo paid 3.5 dollars.", '"Really?"', "She said", "No full stop"]
    assert sentence_spans("Yes. Yes.") == [(0, 4), (5, 9)]
