"""What components there are, learned from their source without importing it.

A component is one file in the folder of its kind, or a module that an installed distribution gives by an entry point
(`kdray.spec.installed`). It defines `DECLARED`, a line that says what kind of thing it is (`kdray.spec.declare`), and a
function of its own name, or a class of that name in capitals (`TopK` in topk.py), whose keyword-only arguments are its
parameters in the grid file. So a plan needs neither torch nor ray.
"""

from __future__ import annotations

import ast
import functools
import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from kdray.spec import declare
from kdray.spec.declare import Declared
from kdray.spec.errors import InputError, did_you_mean
from kdray.spec.installed import Entry, entries, import_of, source_of
from kdray.spec.parameters import REQUIRED, Parameter, in_words
from kdray.spec.sections.base import Use

D = TypeVar("D", bound=Declared)
OWN_NAME = re.compile(r"[A-Za-z0-9_]{1,12}")  # of a task that stands several times: scores are called after it


@dataclass(frozen=True)
class Component(Generic[D]):
    """A component as its source declares it: `attribute` is its function or class in `module`, `entry` what gives one
    that is not kdray's own.
    """

    kind: type[Declared]
    name: str
    summary: str
    parameters: Mapping[str, Parameter]
    declared: D
    module: str
    attribute: str
    entry: Entry | None = None

    @property
    def description(self) -> str:
        """Its summary, and whose it is if not kdray's own."""
        return f"{self.summary} ({self.entry.distribution})" if self.entry else self.summary

    @property
    def origin(self) -> dict[str, Any]:
        """What ids and records know of where it is from: nothing of kdray's own, else the distribution and its
        version.
        """
        return {"distribution": vars(self.entry.distribution)} if self.entry else {}

    def imported(self) -> ModuleType:
        """Its module.

        Raises:
            InputError: it is not kdray's own, and cannot be imported.
        """
        return import_of(self.entry) if self.entry else importlib.import_module(self.module)


def components(kind: type[D]) -> dict[str, Component[D]]:
    """All components of `kind` by name, kdray's own before those of installed distributions.

    Raises:
        InputError: a file in the kind's folder is none, or an entry point gives none or one whose name is taken.
    """
    return found_components(kind)


@functools.cache
def found_components(kind: type[Declared]) -> dict[str, Component[Any]]:
    """As `components`, kept for the life of the process."""
    folder = Path(__file__).parents[1] / kind.folder
    found = {path.stem: read(kind, path) for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}
    for entry in entries(kind) if kind.group else ():
        if other := found.get(entry.name):
            owner = str(other.entry.distribution) if other.entry else "kdray"
            allowed = f"a name has one meaning: uninstall {entry.distribution.name}, or rename it there"
            raise InputError(
                kind.group, f"{kind.word} '{entry.name}' is both {owner}'s and {entry.distribution}'s", allowed
            )
        found[entry.name] = read_installed(kind, entry)
    return found


def component(kind: type[D], name: str, where: str) -> Component[D]:
    """The component `name`; `lm_eval:mmlu` is the component `lm_eval`, which is `named`, for something called mmlu, and
    `summaries:mine` is `summaries`, which may stand `several` times, under a name of the user's.

    Raises:
        InputError: there is none, or the user's name is none; `where` is the field that named it.
    """
    base, colon, of = name.partition(":")
    found = components(kind).get(base)
    several = found is not None and _is_several(found)
    if found is None or (_is_named(found) != bool(colon) and not several) or of == "NAME" or (colon and not of):
        spelt = {f"{other}:NAME" if _is_named(each) else other: each for other, each in components(kind).items()}
        known = [*spelt, *(f"{other}:NAME" for other, each in spelt.items() if _is_several(each))]
        raise InputError(
            where, f"no {kind.word} '{name}'", did_you_mean(f"{base}:NAME" if colon and of else name, known)
        )
    if several and colon and not OWN_NAME.fullmatch(of):
        raise InputError(where, f"'{name}'", f"behind {base}: write 1 to 12 letters, digits or _")
    return found


def _is_several(found: Component[Any]) -> bool:
    return isinstance(found.declared, declare.Task) and found.declared.several


def _is_named(found: Component[Any]) -> bool:
    return isinstance(found.declared, declare.ChoiceTask) and found.declared.named


def declared(kind: type[D], name: str) -> D:
    """What the component `name` declares, where it is known that there is one."""
    return component(kind, name, kind.word).declared


def asks_grids_rows(task: declare.Task) -> bool:
    """Whether a task is about the rows of the grid's own data."""
    return isinstance(task, declare.HeldoutTask) or (isinstance(task, declare.AnswerTask) and task.rows is not None)


def module_of(kind: type[Declared], name: str) -> Any:
    """The module of the component `name`, imported."""
    return component(kind, name, kind.word).imported()


def load(kind: type[Declared], name: str) -> Any:
    """The function or class that the component `name` is."""
    found = component(kind, name, kind.word)
    return getattr(found.imported(), found.attribute)


def bind(kind: type[Declared], name: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All parameters of a component, defaults filled in, `given` checked by name and type.

    Raises:
        InputError: an unknown, missing or wrongly typed parameter.
    """
    declared = component(kind, name, where).parameters
    for key in given:
        if key not in declared:
            raise InputError(f"{where}.{key}", f"{kind.word} '{name}' has no such field", did_you_mean(key, declared))
    bound = {}
    for key, parameter in declared.items():
        value = given.get(key, parameter.default)
        if value is REQUIRED:
            raise InputError(f"{where}.{key}", "missing", f"{kind.word} '{name}' needs {key}: {parameter.annotation}")
        try:
            bound[key] = parameter.check(value)
        except ValueError:
            raise InputError(f"{where}.{key}", f"{value!r}", f"must be {in_words(parameter.annotation)}") from None
    return bound


def bind_use(use: Use, kind: type[Declared], where: str) -> Use:
    """As `bind`, of a component as the grid file names it."""
    return Use.model_construct(name=use.name, params=bind(kind, use.name, use.params, where))


def read(kind: type[D], path: Path) -> Component[D]:
    """The component in the file at `path`, which is kdray's own.

    Raises:
        InputError: it declares nothing, something of another kind, or a field that the kind does not have.
    """
    module = f"kdray.{kind.folder.replace('/', '.')}.{path.stem}"
    return _parsed(kind, path.stem, path.read_text(encoding="utf-8"), module, str(path), "in this folder")


def read_installed(kind: type[D], entry: Entry) -> Component[D]:
    """The component that an entry point gives.

    Raises:
        InputError: there is no such module, or it is no component of this kind; the line names the distribution.
    """
    where = str(entry)
    try:
        found = _parsed(kind, entry.name, source_of(entry), entry.module, where, f"in {entry.group}")
    except InputError:
        raise
    except (SyntaxError, ValueError) as error:  # the latter of a zero byte
        raise InputError(where, f"{entry.module} is not Python ({error})", entry.remedy) from None
    for name, parameter in found.parameters.items():
        try:
            _ = parameter.type
        except TypeError as error:
            raise InputError(
                f"{where}: {name}", str(error), "write one of the types in kdray/spec/parameters.py"
            ) from None
    return replace(found, entry=entry)


def _parsed(kind: type[D], name: str, source: str, module: str, where: str, place: str) -> Component[D]:
    """The component that a module's source declares; `where` names it in errors, `place` what wants this kind."""
    tree = ast.parse(source)
    found = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "DECLARED"
    ]
    if not found:
        raise InputError(
            where,
            f"a {kind.word} without a line DECLARED = ...",
            f"write DECLARED = declare.{kind.__name__}(version=1)",
        )
    try:
        declared = _value(found[0])
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InputError(
            where, f"{field or ast.unparse(found[0])}: {first['msg']}", "see kdray/spec/declare.py"
        ) from None
    except ValueError:
        raise InputError(
            where, ast.unparse(found[0]), "write one of the classes of declare, with its values written out"
        ) from None
    if not isinstance(declared, kind):
        raise InputError(where, f"declares {ast.unparse(found[0])}", f"{place} it must be a declare.{kind.__name__}")
    callables = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and _is_called(n, name)]
    if not callables:
        capitals = "".join(word.capitalize() for word in name.split("_"))
        raise InputError(where, f"has no function {name} or class {capitals}", f"that is what a {kind.word} is")
    parameters = _parameters(callables[0], where)
    needed = (*declared.reads, *declared.later)
    for read in needed:
        if read not in parameters:
            raise InputError(
                where, f"{name} has no keyword-only parameter {read}", f"kdray reads of it: {', '.join(needed)}"
            )
    summary = " ".join((ast.get_docstring(tree) or "").partition("\n\n")[0].split())
    return Component(kind, name, summary, parameters, declared, module, callables[0].name)


def _is_called(node: ast.FunctionDef | ast.ClassDef, name: str) -> bool:
    """Whether a function or class is the component `name`: a class has that name in capitals, without underscores."""
    if isinstance(node, ast.FunctionDef):
        return node.name == name
    return node.name[0].isupper() and node.name.lower() == name.replace("_", "").lower()


def _value(node: ast.expr) -> Any:
    """A literal, or one of the classes of `declare` called with literals.

    Raises:
        ValueError: it is something else (a ValidationError where a class is called with wrong arguments).
    """
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="declare"), attr=name), args=args, keywords=keywords) if (
            hasattr(declare, name)
        ):
            return getattr(declare, name)(*map(_value, args), **{str(k.arg): _value(k.value) for k in keywords})
        case ast.Tuple(elts=elements):
            return tuple(map(_value, elements))
    return ast.literal_eval(node)


def _parameters(node: ast.FunctionDef | ast.ClassDef, where: str) -> dict[str, Parameter]:
    if isinstance(node, ast.ClassDef):
        inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if not inits:
            return {}
        node = inits[0]
    found = {}
    for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        annotation = ast.unparse(argument.annotation) if argument.annotation else "Any"
        try:
            value = REQUIRED if default is None else ast.literal_eval(default)
        except ValueError:
            raise InputError(
                f"{where}: {argument.arg}", f"the default {ast.unparse(default or node)}", "write its value out"
            ) from None
        found[argument.arg] = Parameter(annotation, value)
    return found
