"""Means over kept answers: a failing row is kept with its error, and takes no neighbour with it."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest

from kdray.score.answers import Answer, Given, load_metric, score_answers
from kdray.score.consistency import batched, rate
from kdray.spec import InputError
from kdray.store import Key, Store


def row(example: int, answer: str = "words", **fields):
    return {
        "example": example,
        "answer": answer,
        "error": None,
        "question": "",
        "source": "s",
        "references": [],
        "wrong": [],
    } | fields


def lengths(answers):
    if any("bad" in answer.text for answer in answers):
        raise ValueError("no such word")
    return [{"length": float(len(answer.text)), "spans": [[0, 1]]} if answer.text else {} for answer in answers]


def test_a_mean_is_over_the_answers_that_have_a_value_and_says_how_many():
    scores, rows = score_answers([row(0, "ab"), row(1, ""), row(2, "abcd")], [lengths], count_empty=True)
    assert scores["length"] == {"value": 3.0, "stderr": pytest.approx(math.sqrt(2) / math.sqrt(2)), "n": 2}
    assert scores["empty"]["value"] == pytest.approx(100 / 3)
    assert "failed" not in scores
    assert [r["length"] for r in rows] == [2.0, None, 4.0]
    assert [r["spans"] for r in rows] == [[[0, 1]], None, [[0, 1]]]


def test_a_failing_row_keeps_its_error_and_its_neighbours_their_values():
    kept = [row(0, "ab"), row(1, "bad"), row(2, "", error="RuntimeError: too long"), row(3, "abcd")]
    scores, rows = score_answers(kept, [lengths], count_empty=True)
    assert [r["length"] for r in rows] == [2.0, None, None, 4.0]
    assert [r["error"] for r in rows] == [None, "ValueError: no such word", "RuntimeError: too long", None]
    assert scores["failed"]["value"] == 50
    assert scores["length"]["n"] == 2
    assert scores["empty"]["value"] == 0  # an answer that was never made is not an empty one


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_is_a_failure_and_no_smaller_mean(value: float):
    """A rate beside it would be 0: no comparison with it is true."""

    def overflows(answers):
        return [rate("fc", value if "bad" in answer.text else 0.9) for answer in answers]

    scores, rows = score_answers([row(0, "bad"), row(1), row(2)], [overflows], count_empty=False)
    assert [r["fc"] for r in rows] == [None, 100, 100]
    assert "fc_mean is" in rows[0]["error"]
    assert (scores["fc"]["n"], scores["failed"]["value"]) == (2, pytest.approx(100 / 3))


def test_numpys_numbers_are_numbers_too():
    """As a component of a user's own may well give them."""
    scores, _ = score_answers(
        [row(0), row(1)], [lambda _: [{"x": np.float32(0.5)}, {"x": np.int64(1)}]], count_empty=False
    )
    assert scores["x"] == {"value": 0.75, "stderr": 0.25, "n": 2}
    assert json.loads(json.dumps(scores)) == scores


def test_nothing_scored_is_an_error_that_says_why():
    with pytest.raises(ValueError, match="no answer could be scored: ValueError: no such word"):
        score_answers([row(0, "bad")], [lengths], count_empty=True)


def test_what_no_row_is_to_blame_for_is_raised():
    def offline(answers):
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        score_answers([row(0)], [offline], count_empty=False)


def test_the_first_row_does_not_decide_which_columns_there_are():
    _, rows = score_answers([row(0, ""), row(1, "ab")], [lengths], count_empty=True)
    assert list(rows[0]) == list(rows[1]) == ["example", "empty", "error", "length", "spans"]


def test_batches_go_by_length_and_results_come_back_in_order():
    seen = []

    def run(batch):
        seen.append(batch)
        return [len(text) for text in batch]

    assert batched(["a", "aaaa", "aa", "aaa"], 2, len, run) == [1, 4, 2, 3]
    assert seen == [["aaaa", "aaa"], ["aa", "a"]]


@pytest.mark.realdata
def test_faithbench_scores_give_the_rate_and_mean_that_they_must(data_dir: Path):
    rows = [json.loads(line) for line in (data_dir / "faithbench.jsonl").read_text().splitlines()]
    stored = [r["metadata"]["hhem-2.1"] for r in rows]
    by_text = {r["summary"]: r["metadata"]["hhem-2.1"] for r in rows}

    def hhem(answers: list[Answer]):
        return [rate("fc", by_text[answer.text]) for answer in answers]

    kept = [
        row(i, r["summary"], source=r["source"])
        for i, r in enumerate(rows)
        if by_text[r["summary"]] == r["metadata"]["hhem-2.1"]
    ]
    scores, _ = score_answers(kept, [hhem], count_empty=True)
    wanted = [by_text[k["answer"]] for k in kept]
    assert len(kept) > 0.95 * len(stored)
    share = sum(score >= 0.5 for score in wanted) / len(wanted)
    assert scores["fc"]["value"] == pytest.approx(100 * share)
    assert scores["fc"]["stderr"] == pytest.approx(100 * math.sqrt(share * (1 - share) / (len(wanted) - 1)))
    assert scores["fc_mean"]["value"] == pytest.approx(100 * statistics.fmean(wanted))


def test_answers_that_are_all_thought_are_counted():
    ends = {"ab": "</think>", "": None}
    kept = [row(i, answer, thought="a", thought_end=end) for i, (answer, end) in enumerate(ends.items())]
    kept.append(row(2, "", thought="", thought_end="</think>"))
    scores, _ = score_answers([*kept, row(3, "ab")], [lengths], count_empty=True)
    assert (scores["unfinished"]["value"], scores["empty"]["value"]) == (25, 50)
    assert "unfinished" not in score_answers(kept, [lengths], count_empty=False)[0]


def test_a_metric_is_not_opened_with_a_model_that_is_not_what_was_sealed(tmp_path: Path) -> None:
    attempt = Store(tmp_path).begin(Key("model", "encoder", "0" * 12), {})
    path = attempt.path / "config.json"
    path.write_text("{}")
    given = Given({"model": attempt.seal().path})
    load_metric("rouge", {}, given)
    path.write_text("{} ")
    with pytest.raises(InputError, match=r"config\.json: damaged \(not what was sealed\)"):
        load_metric("rouge", {}, given)
