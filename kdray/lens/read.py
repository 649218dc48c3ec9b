"""Reading annotation files line by line, with errors that say where."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kdray.spec.errors import InputError


def read_lines(path: Path, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The objects in a file of JSON lines.

    Raises:
        InputError: there is no such file, a line is no JSON object, or it lacks one of `fields`.
    """
    if not path.is_file():
        raise InputError("annotations", f"no file {path}", "give a file of JSON lines")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError("annotations", f"line {number} of {path.name} is no JSON ({error.msg})", "one object a line") from None
        missing = [field for field in fields if not isinstance(row, dict) or field not in row]
        if missing:
            raise InputError("annotations", f"line {number} of {path.name} has no '{missing[0]}'", f"it needs {', '.join(fields)}")
        yield row
