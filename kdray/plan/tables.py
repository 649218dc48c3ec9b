"""Whether a data set can be read and has the columns that are asked of it, by its name and its first rows."""

from __future__ import annotations

import csv
import itertools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from kdray.spec.errors import InputError
from kdray.spec.paths import not_found
from kdray.spec.refs import Reference

FORMATS = (".json", ".jsonl", ".csv", ".parquet")
ROWS = 100  # a column may be absent from the first rows


def check_table(ref: Reference, field: str, wanted: list[str]) -> None:
    """Whether a data set has a format that can be read and, if it is a local file, rows with the columns `wanted`."""
    if ref.scheme == "hf":
        return
    suffix = PurePosixPath(ref.path or ref.name).suffix
    if suffix not in (*FORMATS, ".zip"):
        raise InputError(field, f"'{ref}' has no known format", f"known: {', '.join(FORMATS)}, or one of them in a .zip")
    if ref.scheme != "file":
        return
    path = Path(ref.name)
    if not path.is_file():
        raise not_found(path, field, "file")
    if path.stat().st_size == 0:
        raise InputError(field, f"{path} has no rows", "give a data set with rows")
    if suffix == ".zip" and not zipfile.is_zipfile(path):
        raise InputError(field, f"{path} is no zip archive, whatever its name", "fetch it again")
    if not wanted or suffix in (".parquet", ".zip"):
        return
    try:
        columns = _csv_columns(path) if suffix == ".csv" else _json_columns(path)
    except (ValueError, RecursionError, csv.Error) as error:  # no text, no JSON, a number or nesting without end
        raise InputError(field, f"{path} is damaged ({error})", f"give a {suffix} file with one object or line a row") from None
    if not columns:
        raise InputError(field, f"{path} has no rows", "give a data set with rows")
    for name in wanted:
        if not set(name.split("|")) & set(columns):
            either = name.replace("|", "' or '")
            raise InputError(field, f"no column '{either}' in {ref}", f"it has {', '.join(columns)}")


def _csv_columns(path: Path) -> list[str]:
    """The names in a table's first line; none if no row follows."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file), [])
        return header if any(line.strip() for line in file) else []


def _json_columns(path: Path) -> list[str]:
    """The names in the first rows of a list of objects, or of one object a line; none if there is no row."""
    with path.open(encoding="utf-8") as file:
        lines = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
        first = next(lines, None)
        if first is None:
            return []
        if first[1].lstrip().startswith("["):
            rows = json.loads(first[1] + "".join(line for _, line in lines))[:ROWS]
        else:
            rows = [_row(number, line) for number, line in itertools.islice(itertools.chain([first], lines), ROWS)]
    if strays := [row for row in rows if not isinstance(row, dict)]:
        raise ValueError(f"a row is no object: {str(strays[0])[:40]}")
    return list(dict.fromkeys(name for row in rows for name in _names(row)))


def _row(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number}: {error.msg}") from None


def _names(row: dict[str, Any]) -> Iterator[str]:
    """The columns of a row, those of a mapping in it as `column.key`."""
    for name, value in row.items():
        yield from [name, *(f"{name}.{key}" for key in value)] if isinstance(value, dict) else [name]
