"""DONE, written last into an artifact's folder: which attempt it is, what its maker noted, and the checksums of its
files, by which whoever reads one of them knows that it is the one that was sealed.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from kdray.spec.errors import InputError
from kdray.store import io
from kdray.store.locks import DONE

ATTEMPT, DROPPED = "attempt-", "dropped-"
SUM = "sum"  # in DONE, of all else that it says
KEPT = 256  # of the last read


def put_done(folder: Path, done: Mapping[str, Any]) -> bool:
    """Write `attempt`, `files` and `facts` as a folder's DONE unless it has one; of several writers exactly one gets
    True.
    """
    return io.put_json_if_absent(folder / DONE, {**done, SUM: _sum(done)})


def read_done(folder: Path) -> dict[str, Any] | None:
    """What a folder's DONE says, which is not to be changed; None if there is no such file or it is damaged."""
    path = folder / DONE
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return _read(path, stat.st_mtime_ns, stat.st_size)


def sealed_files(attempt: Path) -> dict[str, dict[str, Any]]:
    """By name the `sha256` and `bytes` of an attempt's files; empty unless it is a finished artifact's.

    Raises:
        InputError: DONE is damaged.
    """
    done = read_done(attempt.parent)
    if done is None and (path := attempt.parent / DONE).is_file():
        raise damaged(path, path.parent)
    return done["files"] if done and done["attempt"] == attempt.name else {}


def require_unchanged(path: Path) -> None:
    """Whether a file is the one that was sealed, if it is a finished artifact's.

    A process reads it for that once, and again where it was written to since.

    Raises:
        InputError: it is another one, or DONE is damaged.
        OSError: it cannot be read.
    """
    attempt = next((folder for folder in path.parents if folder.name.startswith(ATTEMPT)), None)
    if attempt and (sealed := sealed_files(attempt).get(str(path.relative_to(attempt)))):
        stat = path.stat()
        if _sha256(path, stat.st_mtime_ns, stat.st_size) != sealed["sha256"]:
            raise damaged(path, attempt.parent, "not what was sealed")


def require_intact(folder: Path, belongs: Callable[[str], bool] = lambda name: True) -> None:
    """Whether the files whose names `belong` are those that were sealed, if the folder is a finished artifact's; but
    those that were removed on purpose.

    Raises:
        InputError: one is missing, or another one, or DONE is damaged.
    """
    for name in filter(belongs, sealed_files(folder)):
        try:
            require_unchanged(folder / name)
        except FileNotFoundError:
            if name not in dropped_files(folder):
                raise damaged(folder / name, folder.parent, "missing") from None


def dropped_files(attempt: Path) -> Collection[str]:
    """The names of files that were removed on purpose from a finished artifact."""
    said = io.read_json(drops_of(attempt))
    return said["files"] if has(said, {"files": list}) else ()


def drops_of(attempt: Path) -> Path:
    """The file that says so."""
    return attempt.with_name(f"{DROPPED}{attempt.name}.json")


def damaged(path: Path, folder: Path, reason: str = "") -> InputError:
    """That a file in an artifact's folder cannot be read."""
    return InputError(
        str(path), f"damaged ({reason})" if reason else "damaged", f"remove the folder {folder} and run again"
    )


def has(value: Any, kinds: Mapping[str, type]) -> TypeGuard[dict[str, Any]]:
    """Whether a value out of a JSON file is an object with fields of these kinds."""
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in kinds.items())


@functools.lru_cache(KEPT)
def _read(path: Path, changed: int, size: int) -> dict[str, Any] | None:
    """A DONE as it is since it was `changed`."""
    done = io.read_json(path)
    if not has(done, {"attempt": str, "files": dict, "facts": dict}) or not _is_whole(done):
        return None
    return done if all(has(said, {"sha256": str, "bytes": int}) for said in done["files"].values()) else None


@functools.cache
def _sha256(path: Path, changed: int, size: int) -> str:
    """Of a file as it is since it was `changed`."""
    return io.sha256(path)


def _is_whole(done: Mapping[str, Any]) -> bool:
    """Whether it says what was written; those of earlier versions have no sum."""
    return SUM not in done or done[SUM] == _sum({name: value for name, value in done.items() if name != SUM})


def _sum(done: Mapping[str, Any]) -> str:
    read = json.loads(json.dumps(done))  # as who reads it will have it
    return hashlib.sha256(json.dumps(read, sort_keys=True).encode()).hexdigest()[:16]
