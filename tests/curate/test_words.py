"""Words, pairs of words and their scores, against the chapter's formula by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kdray.curate.words import Words, all_entries, folded, pair_scores


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


def test_the_score_of_a_pair_is_tempered_and_shifted() -> None:
    single = {"a": 4, "b": 2, "c": 2}
    pairs = {("a", "b"): 2, ("b", "c"): 1, ("c", "a"): 1}
    pmi = {pair: math.log(count * 8 / (single[pair[0]] * single[pair[1]])) for pair, count in pairs.items()}
    base = np.percentile(list(pmi.values()), 30)
    expected = {pair: (count + 1) ** 0.7 * (pmi[pair] - base) for pair, count in pairs.items()}
    assert pair_scores(single, pairs) == pytest.approx(expected)
    assert pmi["a", "b"] == pytest.approx(math.log(2))
    assert pair_scores(single, {}) == {}


def test_a_pair_that_occurs_once_does_not_beat_a_common_one() -> None:
    drawn = np.random.default_rng(0).integers(30, size=(600, 3))
    filler = [" ".join(f"w{word}" for word in text) for text in drawn]
    made = words(*["new york"] * 40, "aaaaab cccccb", *filler)
    scores = pair_scores(made.single, made.pairs)
    pmi_of_once, pmi_of_often = math.log(sum(made.single.values())), math.log(sum(made.single.values()) / 40)
    assert pmi_of_once > pmi_of_often
    assert scores["new", "york"] > scores["aaaaab", "cccccb"]


def test_entries_occur_often_enough_and_the_best_pairs_are_taken() -> None:
    made = words(*["red car"] * 9, *["the red", "the car", "the sun", "sun the"] * 3, "moon")
    assert list(made.entries(3, 0)) == ["red", "car", "the", "sun"]
    assert list(made.entries(3, 1))[-1] == "red car"
    assert "moon" not in list(made.entries(2, 10))


def test_entries_are_folded_and_each_there_once() -> None:
    assert all_entries(["  New  York", "new york", "", "art"]) == ["art", "new york"]
