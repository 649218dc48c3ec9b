"""Components that installed distributions give: entry points in the groups that `kdray.spec.declare` names.

An entry point's name is the component's, and its value the module that has `DECLARED` and the function or class of
that name, as a file in the package has. Its source is found by where Python would look for it, but neither the module
nor the packages around it are run: a plan needs no torch, whatever a distribution imports.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from kdray.spec.declare import Declared
from kdray.spec.errors import InputError


@dataclass(frozen=True)
class Distribution:
    """An installed distribution: its name as package indexes write it, in lower case and with single dashes."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Entry:
    """An entry point that gives a component: `name = module` in `group`."""

    group: str
    name: str
    module: str
    distribution: Distribution

    def __str__(self) -> str:
        return f"{self.distribution}: entry point '{self.name} = {self.module}' in {self.group}"

    @property
    def remedy(self) -> str:
        return f"correct {self.distribution.name}, or uninstall it"


def entries(kind: type[Declared]) -> list[Entry]:
    """The entry points that give components of a kind, sorted by name.

    Raises:
        InputError: one of them is of a distribution without a name or a version.
    """
    found = [
        Entry(each.group, each.name, each.value, _distribution(each))
        for each in entry_points().select(group=kind.group)
    ]
    return sorted(found, key=lambda entry: (entry.name, entry.distribution.name))


def source_of(entry: Entry) -> str:
    """The text of the module that an entry point names, which is not run.

    Raises:
        InputError: there is no such module, or none that is written in Python.
    """
    spec = _find(entry.module)
    if spec is None:
        raise InputError(str(entry), f"there is no module {entry.module}", entry.remedy)
    read: Any = getattr(spec.loader, "get_source", lambda _: None)
    try:
        source = read(spec.name)
    except (ImportError, SyntaxError, UnicodeDecodeError) as error:
        raise InputError(str(entry), f"{entry.module} cannot be read ({error})", entry.remedy) from None
    if source is None:
        raise InputError(str(entry), f"{entry.module} is no module with a source in Python", entry.remedy)
    return source


def import_of(entry: Entry) -> ModuleType:
    """The module that an entry point names, imported.

    Raises:
        InputError: it cannot be; the exception behind it is what its code raised.
    """
    try:
        return importlib.import_module(entry.module)
    except Exception as error:
        raise InputError(str(entry), f"cannot be imported ({type(error).__name__}: {error})", entry.remedy) from error


@functools.cache
def entry_points() -> Any:
    """All entry points of all distributions, to select from: their files are looked through once.

    Python 3.11 has no type for it.
    """
    return importlib.metadata.entry_points()


def _distribution(found: importlib.metadata.EntryPoint) -> Distribution:
    assert found.dist is not None
    metadata = found.dist.metadata
    if "Name" not in metadata or "Version" not in metadata:
        where = f"entry point '{found.name} = {found.value}' in {found.group}"
        raise InputError(where, "its distribution has no name or no version", "install that again")
    return Distribution(re.sub(r"[-_.]+", "-", metadata["Name"]).lower(), metadata["Version"])


def _find(module: str) -> ModuleSpec | None:
    """Where a module lies. `importlib.util.find_spec` would run the packages around it."""
    first, *rest = module.split(".")
    if not all(part.isidentifier() for part in (first, *rest)):
        return None
    try:
        spec = importlib.util.find_spec(first)
    except ValueError:  # a module of that name is there already, and came from nowhere
        return None
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec
