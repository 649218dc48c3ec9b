"""Files that an artifact is made of, `part-00012-<checksum>.parquet`: each whole or absent, so that a killed run keeps them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdray.store import Attempt, io


def write_part(folder: Path, index: int, suffix: str, write: Callable[[Path], None]) -> None:
    """Write part `index` of an attempt under a name that ends in its checksum, whole or not at all."""
    aside = folder / f"{io.TEMPORARY}{index:05d}{suffix}"
    write(aside)
    aside.rename(folder / f"part-{index:05d}-{io.sha256(aside)[:16]}{suffix}")


def carry_over(attempt: Attempt) -> set[int]:
    """Bring the intact parts of earlier attempts into this one; returns the indices that are there."""
    for folder in attempt.earlier:
        for path in folder.glob("part-*"):
            present = parts(attempt.path)
            if _index(path) not in present and io.sha256(path)[:16] == path.stem.rsplit("-", 1)[-1]:
                (attempt.path / path.name).hardlink_to(path)
    return set(parts(attempt.path))


def parts(folder: Path) -> dict[int, Path]:
    """The finished parts in a folder, by index."""
    return {_index(path): path for path in sorted(folder.glob("part-*"))}


def _index(path: Path) -> int:
    return int(path.name.split("-")[1])
