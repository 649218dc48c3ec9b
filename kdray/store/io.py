"""The verbs through which the store touches its file system, each atomic: another backend would replace this file.

Readers never see half a file: writes go to a temporary name in the same folder and are moved into place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"


def read_json(path: Path) -> Any | None:
    """The JSON in `path`, or None if there is no such file or it is damaged."""
    try:
        try:
            content = path.read_bytes()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            content = path.read_bytes()  # on NFS: replaced between its opening and its reading
        return json.loads(content)
    except (
        FileNotFoundError,
        NotADirectoryError,
        ValueError,
        RecursionError,
    ):  # no text, no JSON, numbers or nesting without end
        return None


def put(path: Path, content: bytes, durable: bool = True) -> None:
    """Write or replace `path`; if `durable`, so that it outlives a loss of power."""
    temporary = _write_aside(path, content, durable)
    os.replace(temporary, path)
    if durable:
        sync(path.parent)


def put_json(path: Path, value: Any, durable: bool = True) -> None:
    put(path, _to_bytes(value), durable)


def put_json_if_absent(path: Path, value: Any, durable: bool = True) -> bool:
    """Write `path` unless it exists; of several writers exactly one gets True."""
    temporary = _write_aside(path, _to_bytes(value), durable)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    if durable:
        sync(path.parent)
    return True


def move(aside: Path, path: Path) -> None:
    """Put what was written aside, a file or a folder, into its place, where it outlives a loss of power whole or not at
    all: a name can be on the disk before what it names.

    Raises:
        OSError: `path` is a folder that is there already.
    """
    for file in [aside, *aside.rglob("*")]:
        sync(file)
    os.replace(aside, path)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold off all others that want to change `path`; whoever dies lets go.

    The file that is locked stays, hidden beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(
            OSError
        ):  # a file system without such locks, or another user's file: better without than not at all
            fcntl.flock(stack.enter_context(path.with_name(f".{path.name}.flock").open("w")), fcntl.LOCK_EX)
        yield


def claim_folder(path: Path) -> bool:
    """Make the folder `path`; of several callers exactly one gets True."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True


def list_folders(path: Path) -> list[Path]:
    """The folders in `path`, sorted; none if it does not exist."""
    return sorted(entry for entry in path.iterdir() if entry.is_dir()) if path.is_dir() else []


def list_files(path: Path) -> list[Path]:
    """All finished files below `path`, sorted."""
    files = (entry for entry in path.rglob("*") if entry.is_file())
    return sorted(entry for entry in files if not entry.name.startswith(TEMPORARY))


def delete(path: Path) -> None:
    """Remove a file or folder; fine if it is gone already."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size(path: Path) -> int:
    """Bytes in the file `path`, or in all files below the folder `path`."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _to_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _write_aside(path: Path, content: bytes, durable: bool) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
    except OSError:  # a full disk, on which every beat of every driver would leave a file behind
        temporary.unlink(missing_ok=True)
        raise
    return temporary
