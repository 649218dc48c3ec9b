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
        ({"name": "lookback_guided", "guide": "lens"}, ["score.decoding.0.guide: 'lens', but there is none; add the section `lens`"]),
        ({"name": "lookback_guided", "guide": "lense"}, ["score.decoding.0.guide: 'lense'; support, lens, or file: and a path"]),
        ({"name": "sampled", "temperature": 0}, ["score.decoding.0.temperature: 0", "float > 0"]),
    ],
)
def test_wrong_decodings(tiny_grid, written, says):
    with pytest.raises(InputError) as error:
        parse_grid(tiny_grid.text({"score.decoding": [written]}))
    assert all(word in str(error.value) for word in says)


def test_a_verdict_may_be_about_one_decoding(tiny_grid):
    both = {"score.decoding": ["greedy", "dola"]}
    assert parse_grid(tiny_grid.text(both | {"report.primary": "xsum/rougeL.dola"})).report.primary == "xsum/rougeL.dola"
    with pytest.raises(InputError, match=r"did you mean 'xsum/rougeL"):
        parse_grid(tiny_grid.text(both | {"report.primary": "xsum/rougeL.sampled"}))
    with pytest.raises(InputError, match=r"nothing measures 'heldout_loss/ce.dola'"):
        parse_grid(tiny_grid.text(both | {"report.primary": "heldout_loss/ce.dola"}))
