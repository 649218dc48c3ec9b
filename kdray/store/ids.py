"""Ids: a hash over everything that changes an artifact's content."""

from __future__ import annotations

import hashlib
import json
import math
import string
from typing import Any

LENGTH = 12  # hex digits, 48 bits: a chance of 2e-5 that any two of 100,000 artifacts collide


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; equal values give equal text.

    Raises:
        TypeError: the value holds something other than dicts with string keys, lists, strings, ints, finite
            floats, bools and None.
    """
    _check(value, "payload")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def fingerprint(value: Any) -> str:
    """The id of a payload."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:LENGTH]


def is_id(text: str) -> bool:
    """Whether `text` may be an id."""
    return len(text) == LENGTH and set(text) <= set(string.hexdigits.lower())


def _check(value: Any, where: str) -> None:
    if value is None or type(value) in (bool, int, str):
        return
    if type(value) is float and math.isfinite(value):
        return
    if type(value) is list:
        for i, item in enumerate(value):
            _check(item, f"{where}[{i}]")
        return
    if type(value) is dict and all(type(key) is str for key in value):
        for key, item in value.items():
            _check(item, f"{where}.{key}")
        return
    raise TypeError(f"{where} cannot be fingerprinted: {value!r} ({type(value).__name__})")
