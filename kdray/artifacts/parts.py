"""Files that an artifact is made of, `part-00012-<checksum>.parquet`: each whole or absent, so that a killed run keeps
them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from kdray.artifacts import files
from kdray.store import Attempt, io

PREFIX = "part-"
NAME = re.compile(rf"{PREFIX}(\d+)-([0-9a-f]+)\.\w+")  # number, checksum


def write_part(folder: Path, index: int, suffix: str, write: Callable[[Path], None]) -> None:
    """Write part `index` of an attempt under a name that ends in its checksum, whole or not at all."""
    aside = folder / f"{io.TEMPORARY}{index:05d}{suffix}"
    write(aside)
    aside.rename(folder / f"{PREFIX}{index:05d}-{io.sha256(aside)[:16]}{suffix}")


def carry_over(attempt: Attempt) -> set[int]:
    """Bring the intact parts of earlier attempts into this one; returns the indices that are there."""
    for folder in attempt.earlier:
        for path in folder.glob(f"{PREFIX}*"):
            named, present = NAME.fullmatch(path.name), parts(attempt.path)
            if named and int(named[1]) not in present and io.sha256(path).startswith(named[2]):
                (attempt.path / path.name).hardlink_to(path)
    return set(parts(attempt.path))


def parts(folder: Path) -> dict[int, Path]:
    """The finished parts in a folder, by index.

    Raises:
        InputError: one has a name that no part has.
    """
    found = {}
    for path in sorted(folder.glob(f"{PREFIX}*")):
        if not (named := NAME.fullmatch(path.name)):
            raise files.damaged(path, "no part's name")
        found[int(named[1])] = path
    return found


def all_parts(folder: Path) -> list[Path]:
    """The parts in a folder in their order; of a finished artifact all that its DONE names.

    Raises:
        InputError: one of them is missing, has another size, or a name that no part has.
    """
    files.require_sealed(folder, lambda name: name.startswith(PREFIX))
    return list(parts(folder).values())
