"""The store: one folder per artifact, found by an id that is a hash of everything its content depends on.

    <root>/<kind>/<slug>-<id>/
        record.json     the canonical payload behind the id
        lock-NNNNNN     who works on it (see `locks`)
        attempt-NNN/    what one attempt wrote; never shared between attempts
        DONE            written last: which attempt it is, and the sha256 of its files
        dropped-...     of that attempt: which of its files were removed since, and why
    <root>/drivers/     one counter for every driver at work (see `locks`)
    <root>/control/     what is asked of them (see `control`)

Without DONE there is no artifact. A half-written folder is never read and never blocks a new attempt.
"""

from __future__ import annotations

import os
import platform
import re
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeGuard

from kdray import __version__
from kdray.spec.errors import InputError
from kdray.store import io
from kdray.store.ids import LENGTH
from kdray.store.locks import DONE, held

RECORD, ATTEMPT, DROPPED = "record.json", "attempt-", "dropped-"
FOLDER = re.compile(rf".+-[0-9a-f]{{{LENGTH}}}")
LISTED = 1.0  # seconds for which a listing is used: a grid asks for thousands of artifacts, one by one


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
        path = self.folder / DONE
        done = io.read_json(path)
        if not _has(done, {"attempt": str, "files": dict, "facts": dict}):
            if not path.is_file():
                raise FileNotFoundError(f"{self.folder} has no readable DONE")
            # Not as unfinished: of two drivers one could write a new DONE just when the other removes the damaged one.
            raise damaged(path, self.folder)
        return done

    @property
    def path(self) -> Path:
        """The folder that holds the artifact's files."""
        return self.folder / self.done["attempt"]

    def require_intact(self, names: Collection[str]) -> None:
        """Whether its files of these names are those that were sealed.

        Raises:
            InputError: one is missing, or is another one.
        """
        for name, sealed in self.done["files"].items():
            path = self.path / name
            if name in names and not path.is_file():
                raise damaged(path, self.folder, "missing")
            if name in names and io.sha256(path) != sealed["sha256"]:
                raise damaged(path, self.folder, "not what was sealed")

    @property
    def dropped(self) -> Collection[str]:
        """The names of files that were removed on purpose: the artifact is done, and what needed them was."""
        said = io.read_json(self._drops)
        return said["files"] if _has(said, {"files": list}) else ()

    def drop(self, names: Collection[str], why: str) -> int:
        """Remove some of its files for good, and keep a record that says so; returns how many bytes that frees."""
        known = {name: self.done["files"][name]["bytes"] for name in names}
        io.put_json(self._drops, {"files": sorted({*known, *self.dropped}), "bytes": sum(known.values()), "why": why})
        for name in known:
            io.delete(self.path / name)
        return sum(known.values())

    @property
    def _drops(self) -> Path:
        return self.folder / f"{DROPPED}{self.done['attempt']}.json"

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
        if io.put_json_if_absent(self.folder / DONE, {"attempt": self.name, "files": listed, "facts": made | facts}):
            for path in leftovers(artifact):
                io.delete(path)
        return artifact

    def _list(self, files: list[Path]) -> dict[str, dict[str, Any]]:
        """What DONE says of the files, which are on the disk before it is."""
        for path in [*files, *{file.parent for file in files}, self.path]:
            io.sync(path)
        return {str(f.relative_to(self.path)): {"sha256": io.sha256(f), "bytes": f.stat().st_size} for f in files}


class Store:
    """All artifacts below `root`. Reading creates nothing."""

    def __init__(self, root: str | Path) -> None:
        try:
            self.root = Path(root).expanduser().resolve()
        except (RuntimeError, ValueError) as error:  # no such user, or a zero byte
            raise InputError("runtime.store", f"{str(root)!r} ({error})", "give the path of a folder") from None
        if not self.root.name:
            raise InputError("runtime.store", f"{self.root} is the root of all folders", "give a folder below it")
        self._listings: dict[str, tuple[int, float, dict[str, list[str]]]] = {}
        self._read: set[str] = set()  # folders whose DONE was whole

    def folder(self, key: Key) -> Path:
        """Where the artifact is or will be: the folder of its id, under whatever slug it was begun."""
        return Path(self._place(key)[0])

    def get(self, key: Key) -> Artifact | None:
        """The finished artifact with this key.

        Raises:
            InputError: its DONE is damaged.
        """
        folder, done = self._place(key)
        return self._finished(key, folder) if done else None

    def find(self, id: str) -> Artifact | None:
        """The finished artifact with this id."""
        for kind in io.list_folders(self.root):
            for folder in self._named(kind.name, id):
                if _is_file(f"{folder}/{DONE}") and (artifact := self._finished(_key(Path(folder)), folder)):
                    return artifact
        return None

    def record(self, id: str) -> dict[str, Any]:
        """The canonical payload behind an id, finished or not.

        Raises:
            KeyError: the store knows no such id.
            InputError: it is damaged.
        """
        for folder in [Path(folder) for kind in io.list_folders(self.root) for folder in self._named(kind.name, id)]:
            record = io.read_json(folder / RECORD)
            if _has(record, {"step": str, "params": dict, "inputs": dict}):
                return record | {name: Fields(record[name], folder / RECORD) for name in ("params", "inputs")}
            if (folder / RECORD).is_file():
                raise damaged(folder / RECORD, folder)
        raise KeyError(id)

    def verify(self, id: str) -> list[str]:
        """What is wrong with an artifact's files: one line each, empty if all is well.

        Raises:
            KeyError: the store has no finished artifact of this id.
        """
        artifact = self.find(id)
        if artifact is None:
            raise KeyError(id)
        faults = []
        for name, expected in artifact.done["files"].items():
            path = artifact.path / name
            if name in artifact.dropped:
                continue
            if not path.is_file():
                faults.append(f"{name} is missing")
            elif io.sha256(path) != expected["sha256"]:
                faults.append(f"{name} has changed since it was sealed")
        return faults

    def reopen(self, key: Key) -> None:
        """Take a finished artifact back, so that it is made again; what was made from it stays."""
        if artifact := self.get(key):
            io.delete(artifact.folder / DONE)
            self._read.discard(str(artifact.folder))

    def begin(self, key: Key, payload: dict[str, Any]) -> Attempt:
        """A new attempt at an artifact, with an empty folder that no other attempt will ever use."""
        folder = self.folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        io.put_json_if_absent(folder / RECORD, payload)
        number = max(map(_number, attempts(folder)), default=0) + 1
        while not io.claim_folder(folder / f"{ATTEMPT}{number:03d}"):
            number += 1
        return Attempt(key, folder, f"{ATTEMPT}{number:03d}")

    def state(self, key: Key) -> Literal["done", "running", "missing"]:
        """Whether the artifact is finished, or somebody holds its lock and still counts it up (for display only).

        Raises:
            InputError: its DONE is damaged.
        """
        if self.get(key):
            return "done"
        return "running" if any(held(Path(folder)) for folder in self._named(key.kind, key.id)) else "missing"

    def folders(self) -> Iterator[tuple[Key, Path]]:
        """Every artifact's folder, finished or not."""
        for kind in io.list_folders(self.root):
            for folder in io.list_folders(kind):
                if FOLDER.fullmatch(folder.name) and (folder / RECORD).is_file():
                    yield _key(folder), folder

    def _place(self, key: Key) -> tuple[str, bool]:
        """The artifact's folder, and whether it has a DONE.

        As text: by the hundred thousand, paths take longer than the disk.
        """
        named = f"{self.root}/{key.kind}/{key.slug}-{key.id}"
        if _is_file(f"{named}/{DONE}"):
            return named, True
        present = self._named(key.kind, key.id)
        finished = [folder for folder in present if _is_file(f"{folder}/{DONE}")]
        return next(iter([*finished, *present]), named), bool(finished)

    def _finished(self, key: Key, folder: str) -> Artifact | None:
        """The artifact in a folder that had a DONE just now."""
        artifact = Artifact(key, Path(folder))
        if folder not in self._read:  # once: a DONE never changes, and a grid asks for it often
            try:
                _ = artifact.done
            except FileNotFoundError:  # removed just now
                return None
            self._read.add(folder)
        return artifact

    def _named(self, kind: str, id: str) -> list[str]:
        """The folders of an id, sorted: more than one only where two drivers named one artifact differently at once."""
        folder = f"{self.root}/{kind}"
        try:
            changed = os.stat(folder).st_mtime_ns
        except FileNotFoundError:
            return []
        known = self._listings.get(kind)
        if known is None or known[0] != changed or time.monotonic() - known[1] > LISTED:
            known = (changed, time.monotonic(), {})
            for name in sorted(os.listdir(folder)):
                known[2].setdefault(name[-LENGTH:], []).append(name)
            self._listings[kind] = known
        return [f"{folder}/{name}" for name in known[2].get(id, [])]


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def damaged(path: Path, folder: Path, reason: str = "") -> InputError:
    """That a file in an artifact's folder cannot be read."""
    return InputError(
        str(path), f"damaged ({reason})" if reason else "damaged", f"remove the folder {folder} and run again"
    )


def sealed_sizes(attempt: Path) -> dict[str, int]:
    """Bytes of the files in an attempt's folder, as the DONE beside it says; empty where that is not there, or of
    another attempt.
    """
    done = io.read_json(attempt.parent / DONE)
    if not _has(done, {"attempt": str, "files": dict}) or done["attempt"] != attempt.name:
        return {}
    return {name: said["bytes"] for name, said in done["files"].items() if _has(said, {"bytes": int})}


def _has(value: Any, kinds: Mapping[str, type]) -> TypeGuard[dict[str, Any]]:
    """Whether a value out of a JSON file is an object with fields of these kinds."""
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in kinds.items())


def leftovers(artifact: Artifact) -> list[Path]:
    """What lies in a finished artifact's folder and is not part of it: other attempts, files that DONE does not
    list.
    """
    sealed = artifact.path
    listed = {sealed / name for name in artifact.done["files"]}
    needed = listed | {parent for path in listed for parent in path.parents}
    inside = [path for path in sealed.rglob("*") if path not in needed and path.parent in {*needed, sealed}]
    return sorted([path for path in attempts(artifact.folder) if path != sealed] + inside)


def _key(folder: Path) -> Key:
    return Key(folder.parent.name, folder.name[: -LENGTH - 1], folder.name[-LENGTH:])


def attempts(folder: Path) -> list[Path]:
    """The attempts' folders in the order in which they were begun."""
    return sorted((path for path in io.list_folders(folder) if path.name.startswith(ATTEMPT)), key=_number)


def _number(attempt: Path) -> int:
    return int(attempt.name.removeprefix(ATTEMPT))
