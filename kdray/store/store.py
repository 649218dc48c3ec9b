"""The store: one folder per artifact, found by an id that is a hash of everything its content depends on.

    <root>/<kind>/<slug>-<id>/
        record.json     the canonical payload behind the id
        lock-NNNNNN     who works on it (see `locks`)
        attempt-NNN/    what one attempt wrote; never shared between attempts
        DONE            written last: which attempt it is, and the sha256 of its files
        dropped-...     of that attempt: which of its files were removed since, and why
    <root>/drivers/     one counter for every driver at work (see `locks`)
    <root>/control/     what is asked of them (see `control`)
    <root>/tracked/     what MLflow has been told to the end (see `track.mirror`)
    <root>/errors/      tracebacks of what went wrong in kdray itself

Without DONE there is no artifact. A half-written folder is never read and never blocks a new attempt.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from kdray.spec.errors import InputError
from kdray.store import io
from kdray.store.artifact import Artifact, Attempt, Fields, Key, attempts, number_of
from kdray.store.done import ATTEMPT, damaged, has
from kdray.store.ids import LENGTH, fingerprint
from kdray.store.locks import DONE, held

RECORD, ERRORS = "record.json", "errors"
FOLDER = re.compile(rf".+-[0-9a-f]{{{LENGTH}}}")
LISTED = 1.0  # seconds for which a listing is used: a grid asks for thousands of artifacts, one by one


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
        """The canonical payload behind an id, which is a hash of it; finished or not.

        Raises:
            KeyError: the store knows no such id.
            InputError: it is damaged.
        """
        for folder in [Path(folder) for kind in io.list_folders(self.root) for folder in self._named(kind.name, id)]:
            record = io.read_json(folder / RECORD)
            if has(record, {"step": str, "params": dict, "inputs": dict}) and _is_behind(id, record):
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
        number = max(map(number_of, attempts(folder)), default=0) + 1
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


def _is_behind(id: str, record: dict[str, Any]) -> bool:
    try:
        return fingerprint(record) == id
    except TypeError:  # a number that no payload has
        return False


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _key(folder: Path) -> Key:
    return Key(folder.parent.name, folder.name[: -LENGTH - 1], folder.name[-LENGTH:])
