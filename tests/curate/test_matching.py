"""Entries are found as a plain search would find them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from kdray.curate.matching import Matcher
from kdray.curate.words import Counted, Words, all_entries, folded


def naive(entries: list[str], text: str) -> list[int]:
    """By a regular expression for each entry: not inside of a word."""
    inside = r"[\p{L}\p{M}\p{N}_]"
    found = []
    for number, entry in enumerate(entries):
        before = rf"(?<!{inside})" if regex.match(inside, entry[0]) else ""
        behind = rf"(?!{inside})" if regex.match(inside, entry[-1]) else ""
        if regex.search(before + regex.escape(entry) + behind, folded(text)):
            found.append(number)
    return found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Art is at a party.", ["art", "party"]),
        ("Partying artfully", []),
        ("The new\n  YORK times", ["new york"]),
        ("C++, not c", ["c++"]),
        ("a c++11 book", ["c++"]),  # no word goes on behind a sign,
        ("the party's art-house", ["art", "party"]),
        ("私は東京都に", ["東京"]),
        ("हिन्दी", []),
        ("", []),
    ],
)
def test_entries_are_whole_words_where_words_are_written_apart(text: str, found: list[str]) -> None:
    entries = all_entries(["art", "party", "New York", "東京", "C++", "हिन"])
    assert [entries[number] for number in Matcher(entries)(text)] == found


def test_no_entries_match_nothing() -> None:
    assert Matcher([])("anything").tolist() == []


@given(st.lists(st.text("ab c'", min_size=1, max_size=4), max_size=6), st.text("ab c'", max_size=24))
def test_all_that_overlap_are_found(entries: list[str], text: str) -> None:
    kept = all_entries(entries)
    assert Matcher(kept)(text).tolist() == naive(kept, text)


@pytest.mark.realdata
def test_counts_of_real_text_are_those_of_a_plain_search(data_dir: Path) -> None:
    lines = (data_dir / "databricks-dolly-15k.jsonl").read_text().splitlines()[:300]
    texts = [json.loads(line)["instruction"] for line in lines]
    words = Words()
    for text in texts:
        words.add(folded(text))
    counted = Counted()
    counted.add(words.table())
    entries = all_entries(counted.entries(2, 100))
    assert len(entries) > 200
    matcher = Matcher(entries)
    assert [matcher(text).tolist() for text in texts] == [naive(entries, text) for text in texts]
