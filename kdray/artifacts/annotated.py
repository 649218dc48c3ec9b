"""Annotated answers, what `annotate` leaves: `annotated.jsonl`, a line an answer as `kdray.lens.sources.jsonl` has it.

Until all answers are annotated they lie in parts, in which a line may also say why an answer could not be.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from kdray.artifacts.files import damaged, reading
from kdray.artifacts.parts import all_parts, write_part
from kdray.spec.errors import InputError
from kdray.store.done import require_intact

ANNOTATED = "annotated.jsonl"
FAILED = "failed"  # of a line that stands for an answer which could not be annotated: why
T = TypeVar("T")


def write_annotated_part(folder: Path, index: int, write: Callable[[Path], None], failed: Iterable[str]) -> None:
    """Keep some annotated answers, which `write` puts into a file, and why others could not be annotated."""

    def write_both(path: Path) -> None:
        write(path)
        with path.open("a") as file:
            file.writelines(json.dumps({FAILED: reason}) + "\n" for reason in failed)

    write_part(folder, index, ".jsonl", write_both)


def read_annotated_parts(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of annotated answers in all parts, and why others could not be annotated.

    Raises:
        InputError: a part is damaged.
    """
    lines: list[dict[str, Any]] = []
    for path in all_parts(folder):
        with reading(path):
            lines += [dict(json.loads(line)) for line in path.read_text().splitlines()]
    return [line for line in lines if FAILED not in line], [line[FAILED] for line in lines if FAILED in line]


def write_annotated(folder: Path, lines: Sequence[dict[str, Any]]) -> None:
    """Put all annotated answers into the one file, in place of the parts."""
    (folder / ANNOTATED).write_text("".join(json.dumps(line) + "\n" for line in lines))
    for path in all_parts(folder):
        path.unlink()


def read_annotated(folder: Path, read: Callable[[Path], Iterable[T]]) -> list[T]:
    """What `read` makes of the lines of a finished artifact.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = folder / ANNOTATED
    require_intact(folder, ANNOTATED.__eq__)
    try:
        return list(read(path))
    except InputError as error:
        raise damaged(path, error.found) from None
