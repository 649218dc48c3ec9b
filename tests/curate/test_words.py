"""Words, pairs of words and their scores, against the chapter's formula by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kdray.curate import words as module
from kdray.curate.words import Counted, Words, all_entries, folded, pair_scores


def words(*texts: str) -> Words:
    made = Words()
    for text in texts:
        made.add(folded(text))
    return made


def test_words_are_counted_whatever_their_case_and_width() -> None:
    made = words("New York, New\u00a0York!", "\uff4e\uff45\uff57 york's")
    assert made.single == {"new": 3, "york": 2, "york's": 1}
    assert made.pairs == {("new", "york"): 2, ("new", "york's"): 1}  # none reaches over the comma


def test_marks_belong_to_their_words_and_runs_without_spaces_are_none() -> None:
    made = words("हिन्दी भाषा", "die 東京都 ist", "a_b c3")
    assert made.single == {"हिन्दी": 1, "भाषा": 1, "die": 1, "ist": 1, "a_b": 1, "c3": 1}
    assert ("die", "ist") not in made.pairs


def counted(*texts: str) -> Counted:
    """Each text counted by itself, as slices are."""
    made = Counted()
    for text in texts:
        made.add(words(text).table())
    return made


def test_the_score_of_a_pair_is_tempered_and_shifted() -> None:
    single = {"a": 4, "b": 2, "c": 2}
    pairs = {("a", "b"): 2, ("b", "c"): 1, ("c", "a"): 1}
    pmi = {pair: math.log(count * 8 / (single[pair[0]] * single[pair[1]])) for pair, count in pairs.items()}
    base = np.percentile(list(pmi.values()), 30)
    expected = [(count + 1) ** 0.7 * (pmi[pair] - base) for pair, count in pairs.items()]
    one, other = (np.array([single[pair[place]] for pair in pairs]) for place in (0, 1))
    assert pair_scores(np.array(list(pairs.values())), one, other, 8) == pytest.approx(expected)
    assert pmi["a", "b"] == pytest.approx(math.log(2))


def test_a_pair_that_occurs_once_does_not_beat_a_common_one() -> None:
    drawn = np.random.default_rng(0).integers(30, size=(600, 3))
    filler = [" ".join(f"w{word}" for word in text) for text in drawn]
    texts = [*["new york"] * 40, "aaaaab cccccb", *filler]
    total = sum(words(*texts).single.values())
    assert math.log(total) > math.log(total / 40), "by its PMI the pair that occurs once is the better one"
    pairs = [entry for entry in counted(*texts).entries(1, 10_000) if " " in entry]
    assert pairs.index("new york") < pairs.index("aaaaab cccccb")


def test_entries_occur_often_enough_and_the_best_pairs_are_taken() -> None:
    made = counted(*["red car"] * 9, *["the red", "the car", "the sun", "sun the"] * 3, "moon")
    assert made.entries(3, 0) == ["car", "red", "the", "sun"]
    assert made.entries(3, 1)[-1] == "red car"
    assert "moon" not in made.entries(2, 10)
    assert Counted().entries(1, 10) == []
    assert counted("moon").entries(1, 10) == ["moon"]


def test_counts_are_added_up_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["red car", "the red car", "the sun"] * 20
    whole = counted(*texts).entries(1, 10)
    monkeypatch.setattr(module, "ADDED", 4)
    made = Counted()
    for text in texts:
        made.add(words(text).table())
        assert sum(table.num_rows for table in made._tables) <= 16, "a table of 8 and one more, not all that came"
    assert made.entries(1, 10) == whole


def test_entries_are_folded_and_each_there_once() -> None:
    assert all_entries(["  New  York", "new york", "", "art"]) == ["art", "new york"]
