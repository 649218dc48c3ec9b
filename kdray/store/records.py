"""The rows of json, jsonl and csv files one after the other, every cell as the file has it.

Nothing is guessed: a cell of a csv file is text, whatever it looks like, and JSON says itself what it holds. Memory
does not grow with the file. What cannot be read exactly is an InputError that names the line, or the column and the
row.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import json
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from kdray.spec.columns import Column
from kdray.spec.errors import InputError
from kdray.store.json_text import CHUNK, decoded, elements_of, lines_of
from kdray.store.passages import PASSAGES, is_passages

CSV = ".csv"
TEXTS = (".json", ".jsonl", CSV)
FORMATS = (*TEXTS, ".parquet")
SMALLEST, LARGEST = -(1 << 63), (1 << 64) - 1  # whole numbers that an Arrow file can hold
ALLOWED = {"text": "text", "texts": "text or a list of texts", "passages": PASSAGES}

csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the default of 128 KB is shorter than some articles


def format_of(name: str) -> str:
    """The ending that says how a file is read, in small letters."""
    return PurePosixPath(name).suffix.lower()


def unknown_format(name: str, field: str) -> InputError:
    """What is said of a file that is not read by its ending."""
    return InputError(field, f"'{name}' has no known format", f"known: {', '.join(FORMATS)}, or one of them in a .zip")


@contextlib.contextmanager
def open_table(path: Path, field: str) -> Iterator[tuple[io.BufferedReader[Any], str]]:
    """The open table at a path, or the one in a zip, and its format.

    Raises:
        InputError: no known format, no such file or one that cannot be opened, or not one table in a zip; also from
            within, where a zip turns out to be damaged.
    """
    suffix = format_of(path.name)
    if suffix not in (*FORMATS, ".zip"):
        raise unknown_format(path.name, field)
    if not path.is_file():
        raise InputError(field, f"no file {path}", f"paths are read from {Path.cwd()}")
    try:
        file = io.BufferedReader(path.open("rb", buffering=0), CHUNK)
    except OSError as error:
        raise InputError(field, f"{path} cannot be read ({error.strerror})", "give a file that you may read") from None
    with file:
        if suffix != ".zip":
            yield file, suffix
            return
        try:
            with zipfile.ZipFile(file) as archive:
                members = [name for name in archive.namelist() if _is_table(PurePosixPath(name))]
                if len(members) != 1:
                    raise InputError(
                        field,
                        f"{path.name} holds {len(members)} tables",
                        f"a zip must hold one of {', '.join(FORMATS)}",
                    )
                with archive.open(members[0]) as inside:
                    yield io.BufferedReader(inside, CHUNK), format_of(members[0])  # type: ignore[arg-type]  # it reads as a raw file does
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            NotImplementedError,
            RuntimeError,
            OSError,
        ) as error:  # the last two: it has a password; its parts are said to begin before it does
            raise InputError(
                field, f"{path} is no zip archive that can be read ({error})", "fetch it again, or pack it anew"
            ) from None


def _is_table(member: PurePosixPath) -> bool:
    return format_of(member.name) in FORMATS and not member.name.startswith(".")  # what macOS leaves beside files


class Records:
    """The rows of an open file, as mappings of those of `columns` that they have; of all columns where none are given.

    `name` and `field` are for errors. Behind the last row, `seen` are the names of all columns in the order of the
    file.

    Raises:
        InputError: from the iteration: a damaged file, no rows, a column that no row has, or a cell that is not as
            wanted.
    """

    def __init__(
        self, file: io.BufferedReader[Any], suffix: str, columns: Sequence[Column], name: str, field: str
    ) -> None:
        self.file, self.suffix, self.columns, self.name, self.field = file, suffix, columns, name, field
        self.seen: dict[str, None] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        number = 0
        try:
            for number, row in enumerate(self._csv() if self.suffix == CSV else self._json(), start=1):
                yield self._picked(row, number) if self.columns else self._checked(row, number)
        except InputError:
            raise
        except (ValueError, RecursionError, csv.Error) as error:  # no UTF-8, no JSON, a number or nesting without end
            rows = (
                "a header and as many cells in every line"
                if self.suffix == CSV
                else "one object a line, or a list of objects"
            )
            raise InputError(
                self.field, f"{self.name} is damaged ({error})", f"give a {self.suffix} file in UTF-8 with {rows}"
            ) from None
        if not number:
            raise InputError(self.field, f"{self.name} has no rows", "give a data set with rows")
        if missing := self.missing():
            raise no_column(missing, self.name, self.seen, self.field)

    def missing(self) -> Column | None:
        """The first of the columns that is in no row so far."""
        return next((column for column in self.columns if not self.seen.keys() & set(column.names)), None)

    def _json(self) -> Iterator[dict[str, Any]]:
        head = self.file.peek(CHUNK).removeprefix(codecs.BOM_UTF8).lstrip()
        for where, row in elements_of(self.file) if head.startswith(b"[") else lines_of(self.file):
            if not isinstance(row, dict):
                raise ValueError(f"{where}: a row is no object: {str(row)[:40]}")
            self.seen.update(dict.fromkeys(row))
            yield row

    def _csv(self) -> Iterator[dict[str, str]]:
        reader = csv.reader(_csv_lines(self.file), strict=True)
        try:
            header = next(reader, [])
            self.seen = dict.fromkeys(header)
            if header and (missing := self.missing()):
                raise no_column(missing, self.name, header, self.field)
            wanted = {name for column in self.columns for name in column.names} or self.seen.keys()
            places = {name: place for place, name in enumerate(header) if name in wanted and name}
            if twice := [name for name in places if header.count(name) > 1]:
                raise ValueError(f"two columns are called '{twice[0]}'")
            for cells in reader:
                if not cells or (len(cells) == 1 < len(header) and not cells[0].strip()):
                    continue
                if len(cells) != len(header):
                    raise ValueError(f"{len(cells)} cells against {len(header)} in the header")
                yield {name: cells[place] for name, place in places.items()}
        except InputError:
            raise
        except (csv.Error, ValueError) as error:
            where = "" if str(error).startswith("line ") else f"line {reader.line_num}: "
            raise ValueError(f"{where}{error}") from None

    def _picked(self, row: Mapping[str, Any], number: int) -> dict[str, Any]:
        cells: dict[str, Any] = {}
        for column in self.columns:
            for name in column.names:
                if name not in row:
                    continue
                value = row[name]
                if not _fits(value, column):
                    raise wrong_cell(
                        column, name, f"{described(value, bool(column.key))} in row {number} of {self.name}", self.field
                    )
                if column.key:
                    value = cells.get(name, {}) | {column.key: value[column.key]}
                self._require_kept(value, name, number)
                cells[name] = value
        return cells

    def _checked(self, row: dict[str, Any], number: int) -> dict[str, Any]:
        for name, value in row.items():
            self._require_kept(value, name, number)
        return row

    def _require_kept(self, value: Any, name: str, number: int) -> None:
        """Half of a surrogate pair, which JSON can write and UTF-8 cannot, would fail later in a tokenizer; and numbers
        have 64 bits.
        """
        if isinstance(value, int | list | dict) and not all(SMALLEST <= each <= LARGEST for each in _integers(value)):
            found = f"column '{name}' holds a number of more than 64 bits in row {number} of {self.name}"
            raise InputError(self.field, found, "write it as a text, in quotes")
        text = value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
        try:
            if not text.isascii():
                text.encode()
        except UnicodeEncodeError:
            found = f"column '{name}' holds half a character in row {number} of {self.name}"
            raise InputError(self.field, found, "write characters beyond U+FFFF as both of their \\u escapes") from None


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _integers(inner)


def no_column(column: Column, name: str, seen: Iterable[str], field: str) -> InputError:
    """What is said of a table without a column that is to be read."""
    has = list(seen)
    allowed = f"it has {', '.join(has)}"
    if len(has) == 1 and any(mark in has[0] for mark in ";\t|"):
        allowed += ": a single one, so write commas between cells"
    return InputError(field, f"no column '{column}' in {name}", allowed)


def wrong_cell(column: Column, name: str, found: str, field: str) -> InputError:
    """What is said of a column, called `name` in the table, that holds something other than what is wanted."""
    allowed = f"a mapping with a list of texts, '{column.key}'" if column.key else ALLOWED[column.holds]
    return InputError(field, f"column '{name}' holds {found}", f"it must hold {allowed}")


def no_choice(column: str, answer: str, choices: Sequence[Any], field: str, row: int | None = None) -> InputError:
    """What is said of a right answer that is none of its row's choices."""
    where = f" in row {row}" if row is not None else ""
    return InputError(
        field,
        f"{column} '{answer}' is none of {', '.join(map(str, choices))}{where}",
        "it must be one of them, or empty",
    )


def described(value: Any, deep: bool = False) -> str:
    """What a cell holds, in words; if `deep`, also what a mapping has."""
    if deep and isinstance(value, Mapping) and value:
        return f"a mapping of {', '.join(f'{name}: {described(inner)}' for name, inner in value.items())}"
    names = {Mapping: "a mapping", list: "a list", str: "a text", type(None): "nothing"}
    return next(
        (name for kind, name in names.items() if isinstance(value, kind)),
        f"the {type(value).__name__} {str(value)[:40]}",
    )


def _fits(value: Any, column: Column) -> bool:
    if column.holds == "anything":
        return not column.key or (isinstance(value, dict) and column.key in value)
    if column.key:
        return isinstance(value, dict) and isinstance(value.get(column.key), list) and _all_texts(value[column.key])
    return (
        value is None
        or isinstance(value, str)
        or (column.holds == "texts" and isinstance(value, list) and _all_texts(value))
        or (column.holds == "passages" and is_passages(value))
    )


def _all_texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(map(_all_texts, value)))


def _csv_lines(file: io.BufferedReader[Any]) -> Iterator[str]:
    for number, line in enumerate(file, start=1):
        text = decoded(line, number)
        if "\r" in text[:-2]:  # old ends of lines, or just that inside of quotes: the csv reader knows
            yield from io.StringIO(text, newline="")
        else:
            yield text
