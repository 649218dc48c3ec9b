"""The values of JSON text one after the other, one a line or in a list, with the line at which each stands."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from typing import Any

CHUNK = 1 << 20  # bytes read at a time
LONGEST = 1 << 28  # characters of a row in a list: behind them damage is not waited out


def lines_of(file: io.BufferedReader[Any]) -> Iterator[tuple[str, Any]]:
    """The values of a file with one a line, and where they are."""
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    for number, line in enumerate(file, start=1):
        text = decoded(line, number).strip()
        if text:
            try:
                yield f"line {number}", decoder.decode(text)
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number}: {error.msg}") from None
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None


def elements_of(file: io.BufferedReader[Any]) -> Iterator[tuple[str, Any]]:
    """The values of a list, and where they are."""
    decoder, window = json.JSONDecoder(object_pairs_hook=_object), _Window(file)
    window.take()
    if window.peek() == "]":
        window.take()
    else:
        while True:
            window.peek()
            yield window.where(), window.value(decoder)
            if (mark := window.take()) == "]":
                break
            if mark != ",":
                raise ValueError(
                    f"{window.where()}: {repr(mark) if mark else 'the end of the file'} where a comma or ] should be"
                )
    if window.peek():
        raise ValueError(f"{window.where()}: something behind the list")


class _Window:
    """A part of a file's text that moves on, and grows where one value does not fit in."""

    def __init__(self, file: io.BufferedReader[Any]) -> None:
        self.file, self.decoder = file, codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at = "", 0
        self.line, self.counted = 1, 0  # the line at a place in the text

    def where(self) -> str:
        self.line, self.counted = self.line + self.text.count("\n", self.counted, self.at), self.at
        return f"line {self.line}"

    def grow(self) -> bool:
        """Drop what is behind and read on, each time more; whether there was something to read."""
        self.where()
        self.text, self.at, self.counted = self.text[self.at :], 0, 0
        data = self.file.read(max(CHUNK, len(self.text)))
        try:
            self.text += self.decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            line = self.line + self.text.count("\n") + error.object.count(b"\n", 0, error.start)
            raise ValueError(f"line {line}: {error.reason} in UTF-8") from None
        return bool(data)

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in " \t\n\r":
                    return self.text[self.at]
                self.at += 1
            if not self.grow():
                return ""

    def take(self) -> str:
        mark = self.peek()
        self.at += len(mark)
        return mark

    def value(self, decoder: json.JSONDecoder) -> Any:
        while True:
            try:
                value, self.at = decoder.raw_decode(self.text, self.at)
                return value
            except json.JSONDecodeError as error:  # perhaps only cut off here
                line = self.line + self.text.count("\n", self.counted, error.pos)
                if len(self.text) - self.at > LONGEST or not self.grow():
                    raise ValueError(f"line {line}: {error.msg}") from None
            except ValueError as error:
                raise ValueError(f"{self.where()}: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' twice in an object")
    return made


def decoded(line: bytes, number: int) -> str:
    """A line as text; the mark that some programs put before the first is none of it."""
    if number == 1:
        line = line.removeprefix(codecs.BOM_UTF8)
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"line {number}: {error.reason} in UTF-8") from None
