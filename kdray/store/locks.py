"""One lock per artifact, so that two drivers on one store share the work instead of doing it twice.

Every driver counts up one file of its own, `<store>/drivers/<owner>`, and its locks name it: that is one small
write a second, however many locks it holds. A waiter takes a lock over when its owner's count has stood still for
`STALE_AFTER` seconds of the waiter's own monotonic clock: clocks of different machines are never compared.

Locks are files `lock-000001`, `lock-000002`, ... each created only if absent; the highest number holds. Taking
over therefore creates the next number, which exactly one of several waiters can do; a number is never used twice
while the artifact is unfinished, so a lock given back is marked as released rather than deleted.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kdray.store import io

BEAT = 1.0  # seconds between counts
STALE_AFTER = 10.0  # seconds without a count after which a holder is taken for dead
PREFIX = "lock-"
DRIVERS = "drivers"
DONE = "DONE"  # the file without which there is no artifact: who holds its lock makes it


class Locks:
    """The locks that one driver holds; a background thread counts for all of them. Use as a context manager."""

    def __init__(self, beat: float = BEAT, stale_after: float = STALE_AFTER) -> None:
        self.owner = uuid.uuid4().hex
        self._beat, self._stale_after = beat, stale_after
        self._held: dict[Path, Path] = {}
        self._counters: tuple[Path, ...] = ()  # one a store
        self._count = 0
        self._seen: dict[Path, tuple[Any, float]] = {}  # others' counters: the count, and since when we know it
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self.count_up, name="kdray-locks", daemon=True)

    def __enter__(self) -> Locks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self._thread.join()
        for folder in list(self._held):
            self.release(folder)
        for counter in self._counters:
            io.delete(counter)

    def try_acquire(self, folder: Path) -> bool:
        """Take the lock of `folder` if it is free or its holder is dead. Does not wait: call it again."""
        if folder in self._held:
            if self._held[folder].exists():
                return True
            del self._held[folder]  # taken over while this process stood still
        current = current_lock(folder)
        if current is not None and not self._is_free(current):
            return False
        number = int(current.name.removeprefix(PREFIX)) + 1 if current else 1
        lock = folder / f"{PREFIX}{number:06d}"
        self.be_counted(folder.parents[1])
        if not io.put_json_if_absent(lock, self._content(), durable=False):
            return False
        if current_lock(folder) != lock:  # the first look missed a higher one, whose maker was removing the one below
            io.delete(lock)
            return False
        if current is not None:
            io.delete(current)
        self._held[folder] = lock
        return True

    def release(self, folder: Path) -> None:
        """Give the lock of `folder` back."""
        lock = self._held.pop(folder, None)
        if lock is not None and (folder / DONE).exists():
            io.delete(lock)
        elif lock is not None and lock.exists():
            with contextlib.suppress(OSError):  # a full disk: it is free once this driver ends
                io.put_json(lock, self._content(released=True), durable=False)

    def holder(self, folder: Path) -> str:
        """Who holds `folder`, for a message: `process 123 on host`."""
        current = current_lock(folder)
        content = (io.read_json(current) if current else None) or {}
        return f"process {content.get('pid', '?')} on {content.get('host', '?')}"

    def _is_free(self, lock: Path) -> bool:
        """Whether `lock` was given back, or its owner has not counted for long enough by our own clock."""
        content = io.read_json(lock)
        if content is not None and content["released"]:
            return True
        counter = (
            lock if content is None else _counter(lock.parent, content["owner"])
        )  # None: cut off by a loss of power
        count = io.read_json(counter)
        if counter not in self._seen or self._seen[counter][0] != count:
            self._seen[counter] = (count, time.monotonic())
        return time.monotonic() - self._seen[counter][1] >= self._stale_after

    def _content(self, released: bool = False) -> dict[str, Any]:
        return {"owner": self.owner, "host": platform.node(), "pid": os.getpid(), "released": released}

    def be_counted(self, root: Path) -> None:
        """Count up in the store below `root` from now on."""
        counter = root / DRIVERS / self.owner
        if counter not in self._counters:
            io.put_json(counter, self._count, durable=False)
            self._counters += (counter,)

    def count_up(self) -> None:
        """Show at every beat that this process lives, until it is stopped."""
        while not self.stopped.wait(self._beat):
            self._count += 1
            for counter in self._counters:
                # A full disk: count again at the next beat, others may take over meanwhile.
                with contextlib.suppress(OSError):
                    io.put_json(counter, self._count, durable=False)


def working(folders: Iterable[Path], patience: float = STALE_AFTER) -> set[Path]:
    """Those of `folders` that somebody works on: whose owner counts on while we look, for `patience` seconds at
    most.
    """
    owners = {folder: owner for folder in folders if (owner := _owner(folder))}
    before = {owner: io.read_json(owner) for owner in owners.values()}
    alive: set[Path] = set()
    deadline = time.monotonic() + patience
    while before.keys() - alive and time.monotonic() < deadline:
        time.sleep(0.1)
        alive |= {owner for owner, count in before.items() if io.read_json(owner) != count}
    return {folder for folder, owner in owners.items() if owner in alive}


def at_work(root: Path, patience: float = STALE_AFTER) -> bool:
    """Whether any driver of the store below `root` counts on while we look, for `patience` seconds at most, whether it
    holds a lock or not.
    """
    seen: dict[Path, Any] = {}
    deadline = time.monotonic() + patience
    while True:
        for counter in (root / DRIVERS).glob("*"):
            count = io.read_json(counter)
            if seen.setdefault(counter, count) != count:
                return True
        if not seen or time.monotonic() > deadline:
            return False
        time.sleep(0.1)


def held(folder: Path) -> bool:
    """Whether the owner of the lock of `folder` counted in the last seconds, by the file's age: one from the future was
    left before the clock was set back. For display only.
    """
    owner = _owner(folder)
    try:
        return owner is not None and abs(time.time() - owner.stat().st_mtime) < STALE_AFTER
    except FileNotFoundError:
        return False


def _owner(folder: Path) -> Path | None:
    """The counter of whoever holds the lock of `folder`; None if nobody does."""
    current = current_lock(folder)
    content = io.read_json(current) if current else None
    return _counter(folder, content["owner"]) if content and not content["released"] else None


def _counter(folder: Path, owner: str) -> Path:
    return folder.parents[1] / DRIVERS / owner  # beside the kinds of artifacts


def current_lock(folder: Path) -> Path | None:
    """The lock of a folder that counts: the one with the highest number."""
    return max(folder.glob(f"{PREFIX}*"), default=None)
