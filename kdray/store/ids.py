"""Ids: a hash over everything that changes an artifact's content."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Iterable
from typing import Any

TEXT, SCALAR = frozenset({str}), frozenset({bool, int, float, str, type(None)})
ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
LENGTH = 12  # hex digits, 48 bits: a chance of 2e-5 that any two of 100,000 artifacts collide


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; equal values give equal text.

    Raises:
        TypeError: the value holds something other than dicts with string keys, lists, strings, ints, finite
            floats, bools and None.
    """
    text = _encoded(value)
    if text is None:
        where, misfit = _misfit(value, "payload")
        raise TypeError(f"{where} cannot be fingerprinted: {misfit!r} ({type(misfit).__name__})")
    return text


def fingerprint(value: Any) -> str:
    """The id of a payload."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:LENGTH]


def is_id(text: str) -> bool:
    """Whether `text` may be an id."""
    return len(text) == LENGTH and set(text) <= set(string.hexdigits.lower())


def _encoded(value: Any) -> str | None:
    """The canonical text; None if there is none.

    A plan asks for a hundred thousand, so where one fails is looked for apart.
    """
    try:
        return ENCODER.encode(value) if _is_json(value) else None
    except ValueError:  # a float that is not finite
        return None


def _is_json(value: Any) -> bool:
    """Whether a value is made of JSON's types alone: the encoder would also take tuples, numpy's floats, and numbers as
    keys.
    """
    kind = type(value)
    if kind is dict:
        if not TEXT.issuperset(map(type, value)):
            return False
        value = value.values()
    elif kind is not list:
        return kind in SCALAR
    return SCALAR.issuperset(map(type, value)) or all(map(_is_json, value))


def _misfit(value: Any, where: str) -> tuple[str, Any]:
    """The innermost part of `value` that has no canonical text, with its place."""
    inside: Iterable[tuple[str, Any]] = ()
    if type(value) is dict and TEXT.issuperset(map(type, value)):
        inside = ((f"{where}.{key}", item) for key, item in value.items())
    elif type(value) is list:
        inside = ((f"{where}[{i}]", item) for i, item in enumerate(value))
    return next((_misfit(item, place) for place, item in inside if _encoded(item) is None), (where, value))
