"""One lock per artifact, so that two drivers on one store share the work instead of doing it twice.

The holder keeps counting its lock up. A waiter takes over when the count has stood still for `STALE_AFTER`
seconds of the waiter's own monotonic clock: clocks of different machines are never compared. Locks are files
`lock-000001`, `lock-000002`, ... each created only if absent; the highest number holds. Taking over therefore
creates the next number, which exactly one of several waiters can do; a number is never used twice while the
artifact is unfinished, so a lock given back is marked as released rather than deleted.
"""

from __future__ import annotations

import os
import platform
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from kdray.store import io

BEAT = 1.0  # seconds between counts
STALE_AFTER = 10.0  # seconds without a count after which a holder is taken for dead
PREFIX = "lock-"


class Locks:
    """The locks that one driver holds, counted up by one background thread. Use as a context manager."""

    def __init__(self, beat: float = BEAT, stale_after: float = STALE_AFTER) -> None:
        self.owner = uuid.uuid4().hex
        self._beat, self._stale_after = beat, stale_after
        self._held: dict[Path, Path] = {}
        self._seen: dict[Path, tuple[Any, float]] = {}
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._count_up, name="kdray-locks", daemon=True)

    def __enter__(self) -> Locks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for folder in list(self._held):
            self.release(folder)

    def try_acquire(self, folder: Path) -> bool:
        """Take the lock of `folder` if it is free or its holder is dead. Does not wait: call it again."""
        if folder in self._held:
            return True
        current = _current(folder)
        if current is not None:
            content = io.read_json(current)
            seen, since = self._seen.get(folder, (None, 0.0))
            if seen != (current, content):
                self._seen[folder] = ((current, content), time.monotonic())
            released = content is not None and content["released"]
            if not released and (seen != (current, content) or time.monotonic() - since < self._stale_after):
                return False
        number = int(current.name.removeprefix(PREFIX)) + 1 if current else 1
        lock = folder / f"{PREFIX}{number:06d}"
        if not io.put_json_if_absent(lock, self._content(0)):
            return False
        if current is not None:
            io.delete(current)
        with self._mutex:
            self._held[folder] = lock
        return True

    def release(self, folder: Path) -> None:
        """Give the lock of `folder` back."""
        with self._mutex:
            lock = self._held.pop(folder, None)
        if lock is not None and (folder / "DONE").exists():
            io.delete(lock)
        elif lock is not None and lock.exists():
            io.put_json(lock, self._content(0, released=True))

    def holder(self, folder: Path) -> str:
        """Who holds `folder`, for a message: `process 123 on host`."""
        current = _current(folder)
        content = (io.read_json(current) if current else None) or {}
        return f"process {content.get('pid', '?')} on {content.get('host', '?')}"

    def _content(self, count: int, released: bool = False) -> dict[str, Any]:
        holder = {"owner": self.owner, "host": platform.node(), "pid": os.getpid()}
        return holder | {"count": count, "released": released}

    def _count_up(self) -> None:
        count = 0
        while not self._stop.wait(self._beat):
            count += 1
            with self._mutex:
                for lock in self._held.values():
                    if lock.exists():
                        io.put_json(lock, self._content(count))


def held(folder: Path) -> bool:
    """Whether `folder` has a lock that was counted up in the last seconds, by the file's age. For display only."""
    current = _current(folder)
    content = io.read_json(current) if current else None
    try:
        fresh = current is not None and time.time() - current.stat().st_mtime < STALE_AFTER
    except FileNotFoundError:
        return False
    return fresh and content is not None and not content["released"]


def _current(folder: Path) -> Path | None:
    return max(folder.glob(f"{PREFIX}*"), default=None)
