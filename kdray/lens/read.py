"""Reading annotation files line by line, with errors that say where."""

from __future__ import annotations

import codecs
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kdray.spec.errors import InputError

WRONG = (
    TypeError,
    ValueError,
    KeyError,
    AttributeError,
    IndexError,
    RecursionError,
)  # what a row of other types than ours raises
LARGEST_ID = 2**31  # stored token ids have 32 bits
T = TypeVar("T")


def read_lines(path: Path, fields: Sequence[str], convert: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    """What `convert` makes of the objects in a file of JSON lines.

    Raises:
        InputError: there is no such file, a line is no JSON object, it lacks one of `fields`, or `convert` cannot use
            it.
    """
    require_file(path, "give a file of JSON lines")
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)  # a mark that some programs put first
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        with at_line(path, number):
            try:
                row = json.loads(line.decode())
            except json.JSONDecodeError as error:
                raise InputError(
                    "annotations", f"line {number} of {path.name} is no JSON ({error.msg})", "one object a line"
                ) from None
            missing = [field for field in fields if not isinstance(row, dict) or field not in row]
            if missing:
                raise InputError(
                    "annotations",
                    f"line {number} of {path.name} has no '{missing[0]}'",
                    f"it needs {', '.join(fields)}",
                )
            converted = convert(row)
        yield converted


def require_file(path: Path, allowed: str) -> None:
    if not path.is_file():
        raise InputError("annotations", f"no file {path}", allowed)


@contextlib.contextmanager
def at_line(path: Path, number: int) -> Iterator[None]:
    """Whatever a wrong line raises becomes an InputError that names it."""
    try:
        yield
    except InputError:
        raise
    except WRONG as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError("annotations", f"line {number} of {path.name}: {reason}", "see docs/lens.md") from None


def text(row: Mapping[str, Any], field: str, default: str | None = None) -> str:
    """A text; where a `default` is given the field may be absent or null."""
    value = row[field] if default is None else row.get(field)
    return default if value is None and default is not None else as_text(value, field)


def as_text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise _wrong(field, value, "a text")
    value.encode()  # half a character would fail later, in a tokenizer
    return value


def items(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(field, value, "a list")
    return value


def span(begin: Any, end: Any) -> tuple[int, int]:
    """Offsets; neither texts nor fractions are made to numbers."""
    if type(begin) is not int or type(end) is not int:
        raise _wrong("a span", [begin, end], "two whole numbers")
    return begin, end


def token_ids(row: Mapping[str, Any], field: str) -> tuple[int, ...] | None:
    """Stored ids; None where there are none."""
    if row.get(field) is None:
        return None
    ids = items(row[field], field)
    if wrong := [value for value in ids if type(value) is not int or not 0 <= value < LARGEST_ID]:
        raise _wrong(field, wrong[0], "a token id")
    return tuple(ids)


def _wrong(field: str, value: Any, needed: str) -> TypeError:
    shown = json.dumps(value)
    return TypeError(f"{field} is {shown if len(shown) <= 40 else shown[:40] + '...'}, not {needed}")
