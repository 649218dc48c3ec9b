"""Wrong grid files: each gets one line that names the field, what was found and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from kdray.spec import InputError
from kdray.spec.load import parse_grid
from tests.conftest import ABSENT

POINT = {"lr": 1e-3, "batch": 2, "alpha": 0}
TEACHER = {"model": "file:HERE/teacher"}
TEACHERS = {"teacher": ABSENT, "teachers": {"big": TEACHER, "small": {"model": "file:HERE/student"}}}


def cases(table: dict[str, tuple[Any, list[str]]]) -> Any:
    """A test for every line: what is changed in a valid grid, and what the line must say."""
    return pytest.mark.parametrize(("wrong", "said"), table.values(), ids=[name.replace(" ", "-") for name in table])


def check(text: str, said: list[str]) -> None:
    """The grid in `text` is refused, in one line that has all of `said`."""
    with pytest.raises(InputError) as caught:
        parse_grid(text)
    line = str(caught.value)
    assert "\n" not in line
    assert line == f"{caught.value.field}: {caught.value.found}; {caught.value.allowed}".strip()
    for part in [*said, "; "]:
        assert part in line
    assert line.count("grid:") <= 1  # no message inside another
