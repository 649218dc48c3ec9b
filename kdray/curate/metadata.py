"""Concepts of a language: what WordNet names, pages' titles, and the words of a corpus and their pairs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from kdray.curate.words import folded
from kdray.spec.errors import InputError
from kdray.store import io

INDEXES = ("index.noun", "index.verb", "index.adj", "index.adv")


def wordnet_lemmas(folder: Path) -> Iterator[str]:
    """The lemmas of all synsets in a folder of WordNet's database files, as Princeton, nltk and Debian lay them down
    (`index.noun` and so on: https://wordnet.princeton.edu/documentation/wndb5wn).

    Raises:
        InputError: the folder has none of them.
    """
    files = [folder / name for name in INDEXES if (folder / name).is_file()]
    if not files:
        raise InputError("--wordnet", f"no {', '.join(INDEXES)} in {folder}", "give the folder of WordNet's files")
    for file in files:
        with file.open(encoding="utf-8") as lines:
            # The licence comes first, behind two spaces.
            yield from (line.split(" ", 1)[0].replace("_", " ") for line in lines if not line.startswith("  "))


def titles_in(file: Path) -> list[str]:
    """The lines of a file of titles.

    Raises:
        InputError: it is not there, or is no text.
    """
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise InputError("--titles", f"{file} cannot be read ({reason})", "give a text file, a title a line") from None


def write_entries(path: Path, entries: Iterable[tuple[str, str, str]]) -> Mapping[str, int]:
    """Write (entry, language, where from) as a table that `data.curate.metadata` reads; returns how many came from
    where. Of entries that several give the first is written.
    """
    seen: set[tuple[str, str]] = set()
    counts: dict[str, int] = {}
    aside = path.with_name(f"{io.TEMPORARY}{path.name}")  # a list that is cut off looks like a shorter one
    with aside.open("w", encoding="utf-8") as file:
        for text, language, source in entries:
            if (entry := folded(text)) and (entry, language) not in seen:
                seen.add((entry, language))
                counts[source] = counts.get(source, 0) + 1
                row = {"entry": entry, "language": language, "from": source}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    io.move(aside, path)
    return counts
