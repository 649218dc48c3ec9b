"""Pairs of better and worse citations: what stands in them, and that both cite as much."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdray.cite.best import Writer
from kdray.cite.format import Span, parse
from kdray.cite.layout import lay_out
from kdray.cite.pairs import WINDOW, balanced, pair_of, spans_of
from kdray.models.loaded import Loaded
from kdray.spec.errors import InputError

SENTENCES = [f"Ada is in {place} now." for place in ("Paris", "Rome", "Oslo", "Lima", "Cairo", "Delhi")]
DOCUMENT, ANSWER = " ".join(SENTENCES), "Ada lives in Paris. Ben is in Lima. Cleo ."


def row_of(tiny: Loaded, **changes: Any) -> dict[str, Any]:
    """An answer of three statements: a better citation of two sentences, a worse one, and the plain one again."""

    def ids(text: str) -> list[int]:
        return tiny.tokenizer(text, add_special_tokens=False)["input_ids"]

    kept = [("[3-3]", -1.0, "[1-2]", 2.0), ("[4-4]", 1.0, "[5-5]", 0.5), ("", 0.0, "[6-6]", 0.1)]
    statements = [
        {"plain": plain, "plain_reward": low, "best": best, "best_reward": high, "tokens": len(ids(text))}
        for (plain, low, best, high), text in zip(
            kept, ["Ada lives in Paris.", " Ben is in Lima.", " Cleo ."], strict=True
        )
    ]
    asked = {"example": 3, "input_ids": ids(f"Read : {DOCUMENT} Where ?"), "source": DOCUMENT, "thought_ids": []}
    said = {"output_ids": ids(ANSWER), "answer": ANSWER, "cited": {"cut": 0, "statements": statements}}
    return asked | said | changes


def test_the_chosen_response_has_the_better_citations_and_the_rejected_one_as_many(tiny: Loaded) -> None:
    row, writer = row_of(tiny), Writer(tiny.tokenizer)
    pair = pair_of(writer, row, seed=0)
    assert pair
    laid = lay_out(tiny.tokenizer, row["input_ids"], DOCUMENT)
    assert list(pair.prompt) == writer.marked(laid).prompt(laid.all)
    chosen, rejected = (parse(tiny.tokenizer.decode(ids), 6) for ids in (pair.chosen, pair.rejected))
    assert not chosen.findings
    assert not rejected.findings
    assert [one.text for one in chosen.statements] == [one.text for one in rejected.statements]
    assert [one.text for one in chosen.statements] == ["Ada lives in Paris.", "Ben is in Lima.", "Cleo ."]
    assert [one.sentences for one in chosen.statements] == [[0, 1], [3], [5]]
    first, second, third = (one.sentences for one in rejected.statements)
    assert (len(first), second, len(third)) == (2, [3], 1)
    assert 2 in first
    assert pair_of(writer, row, seed=0) == pair
    others = {pair_of(writer, row, seed=seed) for seed in range(8)}
    assert len(others) > 1


def test_nothing_is_learned_from_an_answer_whose_plain_citations_are_the_best(tiny: Loaded) -> None:
    row, writer = row_of(tiny), Writer(tiny.tokenizer)
    for each in row["cited"]["statements"]:
        each["plain_reward"] = each["best_reward"]
    assert pair_of(writer, row, seed=0) is None
    assert pair_of(writer, row_of(tiny, cited={"cut": 0, "statements": []}), seed=0) is None


def test_sentences_that_were_cut_are_not_shown(tiny: Loaded) -> None:
    row, writer = row_of(tiny), Writer(tiny.tokenizer)
    row["cited"] |= {"cut": 1, "statements": row["cited"]["statements"]}
    row["cited"]["statements"][2]["best"] = "[5-5]"
    pair = pair_of(writer, row, seed=0)
    assert pair
    text = tiny.tokenizer.decode(pair.prompt)
    assert "Cairo" in text
    assert "Delhi" not in text


def test_answers_in_other_tokens_are_refused(tiny: Loaded) -> None:
    row = row_of(tiny)
    row["cited"]["statements"][0]["tokens"] += 1
    with pytest.raises(InputError, match="ANSWERS: row 4 reads otherwise in this model's tokens"):
        pair_of(Writer(tiny.tokenizer), row, seed=0)


PLACES = st.sets(st.integers(0, 29)).map(frozenset)


@given(PLACES, st.integers(0, 30), st.integers(0, 99))
def test_as_many_sentences_are_cited_beside_and_among_those_that_were(
    cited: frozenset[int], count: int, seed: int
) -> None:
    found = balanced(cited, count, 30, np.random.default_rng(seed))
    assert len(found) == count
    assert found <= set(range(30))
    assert found <= cited or found >= cited
    near = {place for place in range(30) if any(abs(place - other) <= WINDOW for other in cited)}
    if cited and count > len(cited):
        assert found <= near or near <= found
    if found < cited:  # whole stretches, but for one
        cut = [
            span
            for span in spans_of(cited)
            if 0 < len(found & set(range(span.first - 1, span.last))) < span.last - span.first + 1
        ]
        assert len(cut) <= 1


@given(PLACES)
def test_spans_are_the_sentences_and_no_two_meet(cited: frozenset[int]) -> None:
    spans = spans_of(cited)
    assert {place for span in spans for place in range(span.first - 1, span.last)} == cited
    assert all(one.last + 1 < other.first for one, other in itertools.pairwise(spans))
    assert spans_of(frozenset({0, 1, 3})) == (Span(1, 2), Span(4, 4))
