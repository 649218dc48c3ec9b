"""A file of an artifact is read whole and as its format says, or it is one InputError that names it and says what to
do.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kdray.spec.errors import InputError
from kdray.store import done

WRONG = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RecursionError,
    OverflowError,
    NotImplementedError,
    OSError,
)


def damaged(path: Path, reason: str) -> InputError:
    """That a file cannot be used; its artifact is made again once it is gone."""
    if path.parent.name.startswith(done.ATTEMPT):
        return done.damaged(path, path.parents[1], reason)
    return InputError(str(path), f"damaged ({reason})", "make it again")  # a copy, outside of a store


@contextlib.contextmanager
def reading(path: Path, *more: type[Exception]) -> Iterator[None]:
    """As `telling`; a file of a finished artifact that is not the one which was sealed is damaged too."""
    with telling(path, *more):
        done.require_unchanged(path)
        yield


@contextlib.contextmanager
def telling(path: Path, *more: type[Exception]) -> Iterator[None]:
    """Whatever a damaged file raises within, also one of `more`, becomes the one line about it."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise damaged(path, "missing") from None
    except (*WRONG, *more) as error:
        shown = next(iter(str(error).splitlines()), "")[:160] or type(error).__name__
        raise damaged(path, f"no {error}" if isinstance(error, KeyError) else shown) from None


def read_json(path: Path) -> Any:
    """The JSON in a file.

    Raises:
        InputError: it is missing or damaged.
    """
    with reading(path):
        return json.loads(path.read_bytes())


def read_object(path: Path) -> dict[str, Any]:
    """As `read_json`, where it is an object."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise damaged(path, "no JSON object")
    return content


def require_sealed(folder: Path, belongs: Callable[[str], bool]) -> None:
    """Whether the files of a finished artifact's folder whose names `belong` to a format are there, with the sizes that
    DONE says.

    For formats in which a file that is cut off, or one that is not there, looks like a shorter one.

    Raises:
        InputError: one is missing or has another size.
    """
    for name, sealed in done.sealed_files(folder).items():
        if belongs(name):
            path = folder / name
            with telling(path):
                if (found := path.stat().st_size) != sealed["bytes"]:
                    raise ValueError(f"{found} bytes of {sealed['bytes']}")


def has_file(path: Path) -> bool:
    """Whether an artifact has this file, even if it is not there any more."""
    return path.is_file() or path.name in done.sealed_files(path.parent)


def is_number(value: Any) -> bool:
    """Whether a value out of a JSON file is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
