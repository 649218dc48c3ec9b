"""Hallucinated spans by metrics: named ones, sentences with low scores, and what cannot be said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from kdray.score.annotate import annotate, sentence_spans
from kdray.score.answers import Answer
from kdray.score.metrics.best_span import best_span


def row(example: int, answer: str, **changes: Any) -> dict[str, Any]:
    fields = {"question": "", "references": [], "wrong": [], "source": "It rained.", "error": None}
    return fields | {"example": example, "answer": answer, "input_ids": [1, 2], "output_ids": [3, example]} | changes


def test_sentences_are_judged_one_by_one_each_against_its_own_source() -> None:
    seen: list[tuple[str, str]] = []

    def support(answers: Sequence[Answer]) -> list[dict[str, float]]:
        seen.extend((answer.text, answer.source) for answer in answers)
        return [{"support": 0.1 if "Snow" in answer.text else 0.9} for answer in answers]

    rows = [row(4, "Snow fell. Snow lay."), row(7, "Rain. Snow fell! Rain.", source="It poured.")]
    (first, second), failed = annotate(rows, support, "support_standin", 0.5)
    assert failed == {}
    assert seen[:2] == [("Snow fell.", "It rained."), ("Snow lay.", "It rained.")]
    assert seen[2] == ("Rain.", "It poured.")
    assert (first.id, first.spans, first.output_ids) == ("4", ((0, 10), (11, 20)), (3, 4))
    assert (second.document, second.spans) == ("It poured.", ((6, 16),))


def test_a_metric_that_names_spans_is_taken_at_its_word_and_one_that_only_objects_is_unfound() -> None:
    said = [
        {"judge": 100.0, "spans": []},
        {"judge": 0.0, "spans": [[3, 7], [7, 7]]},
        {"judge": 0.0, "spans": []},
        {"error": "judge: no conclusion"},
    ]
    found, failed = annotate([row(i, "In Rome.") for i in range(4)], lambda answers: said, "judge", 50.0)
    assert failed == {"3": "judge: no conclusion"}
    assert [(each.id, each.spans, bool(each.unfound)) for each in found] == [
        ("0", (), False),
        ("1", ((3, 7),), False),
        ("2", (), True),
    ]


def test_an_answer_without_a_right_one_is_hallucinated_as_a_whole() -> None:
    right = {"references": ["Rome"]}
    rows = [row(0, "It is in Rome.", **right), row(1, "In Oslo. Or in Paris.", **right), row(2, "In Oslo.")]
    found, failed = annotate(rows, best_span, "best_span", 50.0)
    assert [(each.id, each.spans, each.unfound) for each in found] == [("0", (), ()), ("1", ((0, 21),), ())]
    assert failed == {"2": "best_span: no reference to compare with"}


def test_what_has_no_word_or_no_source_is_left_out() -> None:
    rows = [row(0, ""), row(1, "Rain.", source=""), row(2, "Rain.", error="out of memory"), row(3, "Rain.")]
    assert [each.id for each in annotate(rows, lambda answers: [{"support": 1.0}], "support_standin", 0.5)[0]] == ["3"]


@pytest.mark.parametrize("name", ["judge", "support_standin"])
def test_an_answer_that_a_metric_fails_on_is_left_out_and_spoils_no_other(name: str) -> None:
    def metric(answers: Sequence[Answer]) -> list[dict[str, Any]]:
        if any("Snow" in answer.text for answer in answers):
            raise RuntimeError("no snow, please")
        return [{"judge": 0.0, "support": 0.0, "spans": [[0, 4]]} for _ in answers]

    found, failed = annotate([row(0, "Rain."), row(1, "Snow fell. Rain."), row(2, "Hail.")], metric, name, 0.5)
    assert [each.id for each in found] == ["0", "2"]
    assert failed == {"1": "RuntimeError: no snow, please"}


def test_out_of_memory_is_nobodys_fault_and_is_told() -> None:
    def metric(answers: Sequence[Answer]) -> list[dict[str, Any]]:
        raise MemoryError

    with pytest.raises(MemoryError):
        annotate([row(0, "Rain.")], metric, "judge", 0.5)


def test_spans_of_sentences_are_those_of_the_text() -> None:
    text = 'Mr. Bo paid 3.5 dollars. "Really?" She said\nNo full stop'
    assert [text[begin:end] for begin, end in sentence_spans(text)] == [
        "Mr. Bo paid 3.5 dollars.",
        '"Really?"',
        "She said",
        "No full stop",
    ]
    assert sentence_spans("Yes. Yes.") == [(0, 4), (5, 9)]


def test_a_thought_is_the_end_of_the_prompt() -> None:
    ((found,), _) = annotate(
        [row(0, "Rain.", thought_ids=[7, 8])], lambda answers: [{"support": 1.0}], "support_standin", 0.5
    )
    assert (found.input_ids, found.output_ids) == ((1, 2, 7, 8), (3, 0))
