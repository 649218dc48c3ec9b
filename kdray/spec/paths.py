"""Paths of files and folders, as a user writes them.

What a shell, another system or an object store would read in a text is not what Python reads: `s3://bucket/x` would be
a folder `s3:` here, `$HOME/x` one called `$HOME`, and all that is put there is lost with the machine. So such texts are
refused; a leading `~` is expanded.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from kdray.spec.errors import InputError

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
DRIVE = re.compile(r"[A-Za-z]:")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
VARIABLE = re.compile(r"\$(\w+|\{[^}]*\})")


def local_path(text: str, field: str = "", seen_by_all: bool = False) -> str:
    """`text` with a leading `~` expanded, if it is a path; one that is `seen_by_all` is for all machines of a cluster.

    Raises:
        InputError: it is empty, an address, or has parts that only a shell or another system would understand.
    """
    allowed = (
        "give the path of a folder that all nodes see" if seen_by_all else "give a path on this machine's file system"
    )
    shown = f"'{text}'"
    if not text.strip():
        raise InputError(field, "empty", allowed)
    if not text.isprintable():
        raise InputError(field, f"{text!r} holds what cannot be printed", allowed)
    if text.startswith("file:"):
        raise InputError(field, f"{shown} is a reference", "write the path alone, without file:")
    if SCHEME.match(text):
        raise InputError(field, f"{shown} is an address", f"{allowed} (mount it first)")
    if DRIVE.match(text) or "\\" in text:
        raise InputError(field, f"{shown} is a path of Windows", f"{allowed}, with /")
    refuse_variables(text, field)
    if ".git" in PurePosixPath(text).parts:
        raise InputError(field, f"{shown} lies in a folder of git's", "give another one")
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise InputError(field, f"{shown}: nobody of that name has a home here", allowed)
    return path


def refuse_variables(text: str, field: str) -> None:
    """Raise InputError if `text` names a variable of the environment: it would be read as it stands."""
    if match := VARIABLE.search(text):
        allowed = "write the path out (a leading ~ is the home folder)"
        raise InputError(field, f"'{text}': {match[0]} is not expanded here", allowed)


def variable_name(text: str, field: str = "") -> str:
    """`text`, if it may be the name of a variable of the environment. It is not shown: it may be the secret itself.

    Raises:
        InputError: it is none.
    """
    if not NAME.fullmatch(text):
        allowed = "write the NAME of a variable of the environment, which holds the URL"
        raise InputError(field, "no name of a variable", allowed)
    return text


def path_of_url(rest: str, text: str, field: str) -> str:
    """The local path behind `file:`, of the forms file:path and file:///path; `text` is the whole reference.

    Raises:
        InputError: it names another machine, another address, or nothing.
    """
    if not rest.strip():
        raise InputError(field, f"'{text}' names no path", "write file:path")
    if SCHEME.match(rest) and "/" in rest.partition(":")[2][:2]:
        allowed = "write one scheme; file: is for paths on this machine's file system"
        raise InputError(field, f"'{text}' holds another address", allowed)
    if rest.startswith("//") and not rest.startswith("///"):
        host = rest[2:].partition("/")[0]
        raise InputError(field, f"'{text}' names the host '{host}'", "write file:path, or file:///path")
    return os.path.expanduser("/" + rest.lstrip("/") if rest.startswith("///") else rest)


def not_found(path: Path, field: str, what: str = "file or folder") -> InputError:
    """That there is no `path`, and where it was looked for."""
    variable = VARIABLE.search(str(path))
    hint = f", and {variable[0]} is not expanded" if variable else ""
    return InputError(field, f"no {what} {path}", f"paths are read from {Path.cwd()}{hint}")


def tracking_address(uri: str, field: str = "") -> str:
    """`uri`, if MLflow reads it as it is meant: it expands nothing, and makes a new file of what it does not
    understand.

    Raises:
        InputError: it is blank, or has parts that only a shell would understand.
    """
    if not uri.strip():
        raise InputError(field, "empty", "write a tracking URI, or leave it out for a file in the store")
    scheme, _, rest = uri.partition(":")
    if scheme not in ("http", "https"):
        refuse_variables(re.sub(r"//[^/]*@", "//...@", uri), field)  # a password may hold a $, and is not shown
    if scheme.startswith("sqlite") and rest.lstrip("/").startswith("~"):
        raise InputError(field, f"'{uri}': ~ is not expanded in an address", "write sqlite:////path/of/mlflow.db")
    return uri
