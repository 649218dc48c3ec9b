"""Ids: stable, equal for equal settings only, and refused where a value has no canonical text."""

from __future__ import annotations

import enum
import math
from pathlib import Path
from typing import Any

import pytest

from kdray.store.ids import LENGTH, canonical, fingerprint


class LikeNumpy(float):
    """numpy.float64 is a float too, and prints differently from version to version."""


class Colour(enum.IntEnum):
    RED = 1


PAYLOAD = {
    "step": "train",
    "version": 1,
    "params": {"lr": 1e-5, "clip": None, "keep": [1, 2.5], "name": "é", "on": True},
    "inputs": {},
}


def test_the_id_of_a_known_payload_never_changes() -> None:
    assert canonical(PAYLOAD) == (
        '{"inputs":{},"params":{"clip":null,"keep":[1,2.5],"lr":1e-05,"name":"\\u00e9","on":true},"step":"train","version":1}'
    )
    assert fingerprint(PAYLOAD) == "1910c0ddc37d"
    assert LENGTH == 12


def test_the_order_of_keys_does_not_matter() -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})


def test_the_order_of_a_list_matters() -> None:
    assert fingerprint([1, 2]) != fingerprint([2, 1])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (0, False),
        (0, None),
        ("1", 1),
        ("", None),
        ([], {}),
        ([1], 1),
        ({"a": None}, {}),
        (0.1, 0.1 + 1e-17 * 10),
    ],
)
def test_different_values_have_different_ids(one: Any, other: Any) -> None:
    assert fingerprint({"x": one}) != fingerprint({"x": other})


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (math.nan, "payload.x.0"),
        (math.inf, "payload.x.0"),
        (-math.inf, "payload.x.0"),
        ((1, 2), "payload.x.0"),
        ({1, 2}, "payload.x.0"),
        (b"a", "payload.x.0"),
        (Path("a"), "payload.x.0"),
        (LikeNumpy(1.5), "payload.x.0"),
        (Colour.RED, "payload.x.0"),
        ({1: "a"}, "payload.x.0"),
        ({"a": {None: 1}}, "payload.x.0.a"),
        (object(), "payload.x.0"),
    ],
)
def test_a_value_without_a_canonical_text_is_refused_by_its_place(value: Any, where: str) -> None:
    with pytest.raises(TypeError, match="cannot be fingerprinted") as caught:
        fingerprint({"x": [value]})
    assert str(caught.value).replace("[0]", ".0").startswith(f"{where} cannot")
