"""Decodings in a grid file: their labels, and what must not be there twice."""

from __future__ import annotations

import pytest

from kdray.spec.decodings import decoding_label
from kdray.spec.errors import InputError
from kdray.spec.load import parse_grid


@pytest.mark.parametrize(
    ("written", "label"),
    [
        ("greedy", "greedy"),
        ("dola", "dola"),
        ({"name": "dola", "layers": "low"}, "dola"),  # its default
        ({"name": "dola", "layers": [2, 4], "repetition_penalty": 1}, "dola-layers-2-4-repetition_penalty-1.0"),
        ({"name": "sampled", "seed": 3, "top_p": None}, "sampled-top_p-None-seed-3"),
    ],
)
def test_a_label_says_what_is_not_a_default(tiny_grid, written, label):
    grid = parse_grid(tiny_grid.text({"score.decoding": [written]}))
    assert decoding_label(grid.score.decoding[0]) == label


def arc(choices):
    task = {"name": "arc_easy", "source": "file:HERE/xsum.jsonl"}
    return {"score.tasks": ["heldout_answers", task], "score.choices": choices, "score.decoding": ["greedy"]}


def test_choices_are_scored_by_what_scores_them(tiny_grid):
    grid = parse_grid(tiny_grid.text(arc(["greedy", {"name": "dola", "layers": "high", "repetition_penalty": 1.2}])))
    assert [decoding_label(use) for use in grid.score.choices] == ["greedy", "dola-layers-high"]
    assert grid.score.choices[1].params == {"layers": "high", "plausibility": 0.1}  # no penalty, which changes nothing
    assert parse_grid(tiny_grid.text({"score.choices": ["greedy"]})).score.choices == grid.score.choices[:1]


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        (["sampled"], "score.choices.0: 'sampled', which scores no choices; one of dola, greedy"),
        (
            [{"name": "dola", "repetition_penalty": 1}],
            "score.choices.0.repetition_penalty: 1.0; choices are scored by layers and plausib",
        ),
        (["dola", {"name": "dola", "plausibility": 0.1}], "score.choices.1: 'dola' a second time; "),
        ([{"name": "dola", "layer": "low"}], "score.choices.0.layer"),
        (["dolla"], "did you mean 'dola'?"),
    ],
)
def test_what_scores_no_choices_is_named(tiny_grid, choices, says):
    with pytest.raises(InputError) as error:
        parse_grid(tiny_grid.text(arc(choices)))
    assert says in str(error.value)


def test_ways_to_score_choices_without_any(tiny_grid):
    with pytest.raises(InputError, match=r"score.choices: no task has choices; add a multiple-choice task"):
        parse_grid(tiny_grid.text({"score.choices": ["greedy", "dola"]}))


def test_a_report_may_be_about_choices_under_dola(tiny_grid):
    changes = arc(["greedy", "dola"])
    assert (
        parse_grid(tiny_grid.text(changes | {"report.primary": "arc_easy/acc.dola"})).report.primary
        == "arc_easy/acc.dola"
    )
    with pytest.raises(InputError, match=r"nothing measures 'arc_easy/acc\.dolla'"):
        parse_grid(tiny_grid.text(changes | {"report.primary": "arc_easy/acc.dolla"}))
    with pytest.raises(InputError, match=r"nothing measures 'heldout_answers/rougeL\.dola'"):
        parse_grid(tiny_grid.text(changes | {"report.primary": "heldout_answers/rougeL.dola"}))


def test_the_same_decoding_in_two_ways_of_writing(tiny_grid):
    with pytest.raises(InputError, match=r"score.decoding.1: 'dola' a second time"):
        parse_grid(tiny_grid.text({"score.decoding": ["dola", {"name": "dola", "plausibility": 0.1}]}))


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("dolla", ["score.decoding.0: no decoding 'dolla'", "did you mean 'dola'?"]),
        ({"name": "dola", "layer": "low"}, ["score.decoding.0.layer", "did you mean 'layers'?"]),
        ({"name": "dola", "layers": "middle"}, ["score.decoding.0.layers: 'middle'", "low"]),
        ({"name": "dola", "plausibility": 1}, ["score.decoding.0.plausibility: 1"]),
        (
            {"name": "lookback_guided", "guide": "lens"},
            ["score.decoding.0.guide: 'lens', but there is none; add the section `lens`"],
        ),
        (
            {"name": "lookback_guided", "guide": "lense"},
            ["score.decoding.0.guide: 'lense'; support, lens, or file: and a path"],
        ),
        ({"name": "sampled", "temperature": 0}, ["score.decoding.0.temperature: 0", "float > 0"]),
    ],
)
def test_wrong_decodings(tiny_grid, written, says):
    with pytest.raises(InputError) as error:
        parse_grid(tiny_grid.text({"score.decoding": [written]}))
    assert all(word in str(error.value) for word in says)


def test_a_verdict_may_be_about_one_decoding(tiny_grid):
    both = {"score.decoding": ["greedy", "dola"]}
    assert (
        parse_grid(tiny_grid.text(both | {"report.primary": "xsum/rougeL.dola"})).report.primary == "xsum/rougeL.dola"
    )
    with pytest.raises(InputError, match=r"did you mean 'xsum/rougeL"):
        parse_grid(tiny_grid.text(both | {"report.primary": "xsum/rougeL.sampled"}))
    with pytest.raises(InputError, match=r"nothing measures 'heldout_loss/ce.dola'"):
        parse_grid(tiny_grid.text(both | {"report.primary": "heldout_loss/ce.dola"}))
