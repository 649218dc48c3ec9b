"""What components there are, learned from their source without importing it.

A component is one file in one of the folders of `FOLDERS`. It defines `VERSION`, and a function or class of
the file's own name whose keyword-only arguments are its parameters in the grid file. Module constants with
literal values (`METRICS = ("rouge",)`) are read too, so that a plan needs neither torch nor ray.
"""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdray.spec.errors import InputError, did_you_mean
from kdray.spec.grid import Use

FOLDERS = {
    "recipe": "data/recipes",
    "template": "data/templates",
    "soft labels": "distill/signals",
    "loss": "distill/losses",
    "schedule": "train/schedules",
    "engine": "train/engines",
    "task": "score/tasks",
    "metric": "score/metrics",
    "decoding": "score/decodings",
    "annotations": "lens/sources",
    "stage": "stages",
}
REQUIRED = object()
Share = float  # as an annotation: between 0 and 1, both excluded
Scalars = dict[str, Any]  # as an annotation: a mapping of names to texts, numbers, true or false
# names of numbers with a range, as annotations of components: pydantic's, and the one above
WORDS = {
    "PositiveInt": "int > 0",
    "NonNegativeInt": "int >= 0",
    "PositiveFloat": "float > 0",
    "NonNegativeFloat": "float >= 0",
    "Share": "float > 0 and < 1",
}
NUMBERS = ("int", "float", *WORDS)
SCALARS = ast.parse("bool | float | str", mode="eval").body
FLOATS = ("float", "PositiveFloat", "NonNegativeFloat", "Share")


@dataclass(frozen=True)
class Parameter:
    """One keyword argument: its annotation as written, and its default (`REQUIRED` for none)."""

    annotation: str
    default: Any


@dataclass(frozen=True)
class Component:
    """A component as its source declares it."""

    kind: str
    name: str
    version: int
    summary: str
    parameters: Mapping[str, Parameter]
    constants: Mapping[str, Any] = field(default_factory=dict)


@functools.cache
def components(kind: str) -> dict[str, Component]:
    """All components of `kind` by name."""
    folder = Path(__file__).parents[1] / FOLDERS[kind]
    found = {}
    for path in sorted(folder.glob("*.py")):
        component = _read(kind, path)
        if component is not None:
            found[component.name] = component
    return found


def component(kind: str, name: str, where: str) -> Component:
    """The component `name`; `lm_eval:mmlu` is the component `lm_eval`, which declares `NAMED`, for something called mmlu.

    Raises:
        InputError: there is none; `where` is the field that named it.
    """
    base, colon, of = name.partition(":")
    found = components(kind).get(base)
    if found is None or bool(found.constants.get("NAMED")) != bool(colon) or of == "NAME" or (colon and not of):
        known = [f"{other}:NAME" if each.constants.get("NAMED") else other for other, each in components(kind).items()]
        raise InputError(where, f"no {kind} '{name}'", did_you_mean(f"{base}:NAME" if colon and of else name, known))
    return found


def bind(kind: str, name: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All parameters of a component, defaults filled in, `given` checked by name and type.

    Raises:
        InputError: an unknown, missing or wrongly typed parameter.
    """
    declared = component(kind, name, where).parameters
    for key in given:
        if key not in declared:
            raise InputError(f"{where}.{key}", f"{kind} '{name}' has no such field", did_you_mean(key, declared))
    bound = {}
    for key, parameter in declared.items():
        value = given.get(key, parameter.default)
        if value is REQUIRED:
            raise InputError(f"{where}.{key}", "missing", f"{kind} '{name}' needs {key}: {parameter.annotation}")
        annotation = ast.parse(parameter.annotation, mode="eval").body
        if key in given and not _fits(annotation, value):
            raise InputError(f"{where}.{key}", f"{value!r}", f"must be {_in_words(parameter.annotation)}")
        bound[key] = _as_annotated(annotation, value)
    return bound


def bind_use(use: Use, kind: str, where: str) -> Use:
    """As `bind`, of a component as the grid file names it."""
    return Use.model_construct(name=use.name, params=bind(kind, use.name, use.params, where))


def _read(kind: str, path: Path) -> Component | None:
    tree = ast.parse(path.read_text())
    constants = {}
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id.isupper() and node.value is not None:  # type: ignore[union-attr]
            try:
                constants[target.id] = ast.literal_eval(node.value)  # type: ignore[union-attr]
            except ValueError:
                continue
    if "VERSION" not in constants:
        return None
    callables = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == path.stem]
    parameters = _parameters(callables[0]) if callables else {}
    summary = (ast.get_docstring(tree) or "").partition("\n")[0]
    return Component(kind, path.stem, constants.pop("VERSION"), summary, parameters, constants)


def _parameters(node: ast.FunctionDef | ast.ClassDef) -> dict[str, Parameter]:
    if isinstance(node, ast.ClassDef):
        inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if not inits:
            return {}
        node = inits[0]
    arguments = node.args
    return {
        argument.arg: Parameter(
            ast.unparse(argument.annotation) if argument.annotation else "Any",
            REQUIRED if default is None else ast.literal_eval(default),
        )
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }


def _fits(annotation: ast.expr, value: Any) -> bool:
    """Whether a YAML value fits an annotation made of `NUMBERS`, str, bool, None, list[...], Scalars, Literal and |."""
    match annotation:
        case ast.BinOp(left=left, right=right):
            return _fits(left, value) or _fits(right, value)
        case ast.Name(id=name) if name in NUMBERS:
            return _is_number(name, value)
        case ast.Constant(value=None):
            return value is None
        case ast.Name(id="str" | "bool" as name):
            return type(value).__name__ == name
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return isinstance(value, list) and all(_fits(inner, item) for item in value)
        case ast.Name(id="Scalars"):
            return isinstance(value, dict) and all(_fits(SCALARS, item) for item in value.values())  # keys are text in all grid files
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            allowed = [ast.literal_eval(choice) for choice in (inner.elts if isinstance(inner, ast.Tuple) else [inner])]
            return any(type(value) is type(one) and value == one for one in allowed)
    raise TypeError(f"a component's parameter is annotated '{ast.unparse(annotation)}', which the schema cannot check")


def _is_number(name: str, value: Any) -> bool:
    if type(value) is not int and not (name in FLOATS and type(value) is float and math.isfinite(value)):
        return False
    if name == "Share":
        return 0 < value < 1
    return value > 0 if name.startswith("Positive") else value >= 0 if name.startswith("NonNegative") else True


def _as_annotated(annotation: ast.expr, value: Any) -> Any:
    """`value`, as a float where one is wanted: 1, 1.0 (and 0, -0.0) are the same setting and must give the same id."""
    match annotation:
        case ast.BinOp(left=left, right=right):
            return next((_as_annotated(side, value) for side in (left, right) if _fits(side, value)), value)
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return [_as_annotated(inner, item) for item in value]
        case ast.Name(id=name) if name in FLOATS:
            return float(value) + 0.0
    return value


def _in_words(annotation: str) -> str:
    """An annotation as a user reads it."""
    for name, words in (WORDS | {"Scalars": "a mapping of names to texts, numbers, true or false"}).items():
        annotation = annotation.replace(name, words)
    return annotation
