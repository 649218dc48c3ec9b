"""The concepts that texts are balanced by, their own or those of a table, and the texts of a table without a grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdray.curate.words import all_entries
from kdray.data.mapped import open_rows, read_rows
from kdray.data.sources import open_source
from kdray.orchestration import curating
from kdray.orchestration.progress import Progress
from kdray.spec.columns import METADATA, Column
from kdray.spec.errors import InputError
from kdray.spec.refs import Reference
from kdray.store import Outer


@dataclass(frozen=True)
class TableTexts:
    """A column of a table, as Arrow files with so many rows."""

    files: tuple[str, ...]
    column: str
    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, begin: int, end: int) -> tuple[np.ndarray, list[str]]:
        """See `kdray.orchestration.curating.Texts`."""
        numbers = np.arange(begin, min(end, self.count))
        return numbers, [row[self.column] or "" for row in read_rows(list(self.files), numbers).values()]


def open_texts(ref: Reference, outer: Outer, column: str, identity: Mapping[str, Any]) -> TableTexts:
    """A column of texts of a table; `identity` is its content when the run began.

    Raises:
        InputError: there is no such table or column, or another content.
    """
    files, count = open_rows(ref, outer, (Column((column,)),), identity, ref.field)
    return TableTexts(tuple(files), column, count)


def words_in(
    texts: curating.Texts, languages: Sequence[str], least: int, pairs: int, progress: Progress
) -> Iterator[tuple[str, str, str]]:
    """The words and pairs of a corpus that are concepts, each with its language and what it is."""
    with progress.bar("words", len(texts), "texts") as bar:
        found = curating.count_words(texts, languages, bar.advance)
    for language, words in found.items():
        for entry in words.entries(least, pairs):
            yield entry, language, "pairs of words" if " " in entry else "words"


def own_entries(
    texts: curating.Texts, languages: Sequence[str], least: int, pairs: int, progress: Progress
) -> dict[str, list[str]]:
    """As `words_in`, by language, as they are matched."""
    found: dict[str, list[str]] = {language: [] for language in languages}
    for entry, language, _ in words_in(texts, languages, least, pairs, progress):
        found[language].append(entry)
    return {language: all_entries(some) for language, some in found.items()}


def read_entries(
    ref: Reference, outer: Outer, languages: Sequence[str], identity: Mapping[str, Any]
) -> dict[str, list[str]]:
    """The concepts in a table, by language; `identity` is its content when the run began.

    Raises:
        InputError: it cannot be read, has none of a language, or another content.
    """
    table = open_source(ref, outer, ref.field, METADATA, identity)
    found: dict[str, list[str]] = {language: [] for language in languages}
    for entry, language in zip(table["entry"], table["language"], strict=True):
        if language in found:
            found[language].append(entry)
    if lacking := [language for language, some in found.items() if not some]:
        raise InputError(ref.field, f"no entry of {', '.join(lacking)}", "name languages that it has")
    return {language: all_entries(some) for language, some in found.items()}


def balanced(
    texts: curating.Texts,
    entries: Mapping[str, Sequence[str]],
    balance: curating.Balance,
    target: Path,
    progress: Progress,
) -> curating.Curated:
    """See `kdray.orchestration.curating.curate`."""
    with progress.bar("curate", 2 * len(texts), "texts") as bar:
        return curating.curate(texts, entries, balance, target, bar.advance)
