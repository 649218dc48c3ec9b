"""An artifact's folder from inside: the attempts that write into it, and what it holds when one of them is sealed."""

from __future__ import annotations

import platform
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdray import __version__
from kdray.store import io
from kdray.store.done import ATTEMPT, damaged, dropped_files, drops_of, put_done, read_done
from kdray.store.locks import DONE


@dataclass(frozen=True)
class Key:
    """Which artifact: its kind (a step's name), a slug for people and the id."""

    kind: str
    slug: str
    id: str


class Fields(dict[str, Any]):
    """A part of DONE or of a record, which lies at `path`.

    A field that is asked for and not there makes that file a damaged one.
    """

    def __init__(self, fields: Mapping[str, Any], path: Path) -> None:
        super().__init__(fields)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise damaged(self.path, self.path.parent, f"no '{name}'")


@dataclass(frozen=True)
class Artifact:
    """A finished artifact."""

    key: Key
    folder: Path

    @cached_property
    def done(self) -> dict[str, Any]:
        """What DONE says: `attempt`, `files` and `facts`.

        Raises:
            InputError: it is damaged.
        """
        done = read_done(self.folder)
        if done is None:
            if not (path := self.folder / DONE).is_file():
                raise FileNotFoundError(f"{self.folder} has no readable DONE")
            # Not as unfinished: of two drivers one could write a new DONE just when the other removes the damaged one.
            raise damaged(path, self.folder)
        return done

    @property
    def path(self) -> Path:
        """The folder that holds the artifact's files."""
        return self.folder / self.done["attempt"]

    @property
    def dropped(self) -> Collection[str]:
        """The names of files that were removed on purpose: the artifact is done, and what needed them was."""
        return dropped_files(self.path)

    def drop(self, names: Collection[str], why: str) -> int:
        """Remove some of its files for good, and keep a record that says so; returns how many bytes that frees."""
        known = {name: self.done["files"][name]["bytes"] for name in names}
        noted = {"files": sorted({*known, *self.dropped}), "bytes": sum(known.values()), "why": why}
        io.put_json(drops_of(self.path), noted)
        for name in known:
            io.delete(self.path / name)
        return sum(known.values())

    @property
    def facts(self) -> Fields:
        """What its maker noted: counts, seconds, library versions. Not part of the id."""
        return Fields(self.done["facts"], self.folder / DONE)


class Attempt:
    """One try at an artifact, with a folder of its own to write into."""

    def __init__(self, key: Key, folder: Path, name: str) -> None:
        self.key, self.folder, self.name = key, folder, name
        self._started = time.monotonic()

    @property
    def path(self) -> Path:
        return self.folder / self.name

    @property
    def earlier(self) -> list[Path]:
        """The folders of this artifact's other attempts, newest first."""
        return [path for path in reversed(attempts(self.folder)) if path != self.path]

    def seal(self, files: list[Path] | None = None, /, **facts: Any) -> Artifact:
        """Write DONE over `files` (all of the attempt's by default) and remove everything else.

        If another attempt was sealed meanwhile, that one stays and is returned: equal ids mean equal content.

        Raises:
            FileNotFoundError: the attempt's files are gone, and not because another attempt was sealed.
        """
        artifact = Artifact(self.key, self.folder)
        try:
            listed = self._list(io.list_files(self.path) if files is None else files)
        except FileNotFoundError:
            if (self.folder / DONE).is_file():
                return artifact
            raise
        made = {"seconds": round(time.monotonic() - self._started, 1), "host": platform.node(), "kdray": __version__}
        if put_done(self.folder, {"attempt": self.name, "files": listed, "facts": made | facts}):
            for path in leftovers(artifact):
                io.delete(path)
        return artifact

    def _list(self, files: list[Path]) -> dict[str, dict[str, Any]]:
        """What DONE says of the files, which are on the disk before it is."""
        for path in [*files, *{file.parent for file in files}, self.path]:
            io.sync(path)
        return {str(f.relative_to(self.path)): {"sha256": io.sha256(f), "bytes": f.stat().st_size} for f in files}


def attempts(folder: Path) -> list[Path]:
    """The attempts' folders in the order in which they were begun."""
    return sorted((path for path in io.list_folders(folder) if path.name.startswith(ATTEMPT)), key=number_of)


def number_of(attempt: Path) -> int:
    return int(attempt.name.removeprefix(ATTEMPT))


def leftovers(artifact: Artifact) -> list[Path]:
    """What lies in a finished artifact's folder and is not part of it: other attempts, files that DONE does not
    list.
    """
    sealed = artifact.path
    listed = {sealed / name for name in artifact.done["files"]}
    needed = listed | {parent for path in listed for parent in path.parents}
    inside = [path for path in sealed.rglob("*") if path not in needed and path.parent in {*needed, sealed}]
    return sorted([path for path in attempts(artifact.folder) if path != sealed] + inside)
