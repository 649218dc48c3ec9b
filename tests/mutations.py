"""Damage as hypothesis draws it: bytes of a good file cut, changed, doubled or put in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from kdray.spec.errors import InputError

# Files are written anew for each example, so that what a fixture gives may be the same for all of them.
DAMAGED = settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
BITS = [b"null", b"[]", b"{}", b'"', b",", b"\n", b"\r", b"1e999", b"-1", b"true", b"NaN", b"9" * 5000, b"[" * 2000]
BITS += [b"\x00", b"\xff", b"\\u0000", b"\\ud800"]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` after one to three accidents."""
    content = whole
    for _ in range(draw(st.integers(1, 3))):
        begin = draw(st.integers(0, max(0, len(content) - 1)))
        end = min(len(content), begin + draw(st.integers(0, 12)))
        kind = draw(st.sampled_from(["cut", "removed", "bytes", "bits", "doubled"]))
        put = {
            "bytes": lambda: draw(st.binary(min_size=1, max_size=4)),
            "bits": lambda: draw(st.sampled_from(BITS)),
            "doubled": lambda begin=begin, end=end, content=content: content[begin:end] * 2,
        }.get(kind, lambda: b"")()
        content = content[:begin] + put + (b"" if kind == "cut" else content[end:])
    return content


def loads_or_says_so(read: Callable[[], Any]) -> None:
    """Whatever is in a file, it is read, or one line says what is wrong."""
    assert "\n" not in refusal(read)


def refusal(read: Callable[[], Any]) -> str:
    """What is said of a file; nothing where it is read."""
    try:
        read()
    except InputError as error:
        return str(error)
    return ""
