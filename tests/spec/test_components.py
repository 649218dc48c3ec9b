"""What the source says of a component is what Python says of it, and the schema can check all of it."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

from kdray.spec import components as spec
from kdray.spec.components import FOLDERS, REQUIRED, Component, components
from kdray.spec.errors import InputError, did_you_mean

ALL = [(kind, name) for kind in FOLDERS for name in components(kind)]
PARAMETRISED = [(kind, name) for kind, name in ALL if kind != "stage"]


def test_every_kind_has_components() -> None:
    assert {kind for kind, _ in ALL} == set(FOLDERS)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_component_has_a_version_and_says_what_it_is(kind: str, name: str) -> None:
    found = components(kind)[name]
    assert type(found.version) is int
    assert found.version >= 1
    assert found.summary.endswith((".", ":"))


@pytest.mark.parametrize(("kind", "name"), PARAMETRISED)
def test_the_schema_can_check_every_parameter_and_its_default(kind: str, name: str) -> None:
    for parameter in components(kind)[name].parameters.values():
        annotation = ast.parse(parameter.annotation, mode="eval").body
        spec._fits(annotation, None)  # raises TypeError for an annotation that it does not know
        if parameter.default is not REQUIRED:
            assert spec._fits(annotation, parameter.default)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), PARAMETRISED)
def test_source_and_import_agree(kind: str, name: str) -> None:
    declared = components(kind)[name]
    module = importlib.import_module("kdray." + FOLDERS[kind].replace("/", ".") + "." + name)
    component: Any = getattr(module, name)
    called = component.__init__ if inspect.isclass(component) else component
    keywords = [p for p in inspect.signature(called).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert {p.name: (p.annotation, REQUIRED if p.default is p.empty else p.default) for p in keywords} == {
        name: (parameter.annotation, parameter.default) for name, parameter in declared.parameters.items()
    }
    assert declared.version == module.VERSION
    for constant, value in declared.constants.items():
        assert getattr(module, constant) == value


def read(tmp_path: Path, source: str) -> Component | None:
    path = tmp_path / "thing.py"
    path.write_text(source)
    return spec._read("task", path)


def test_a_file_without_a_version_is_no_component(tmp_path: Path) -> None:
    assert read(tmp_path, "def thing(*, a: int) -> None: ...") is None


def test_only_keyword_arguments_of_the_files_own_name_are_parameters(tmp_path: Path) -> None:
    source = '"""What it is.\n\nMore."""\nVERSION: int = 3\nLIST = ["a"]\nMADE = list("ab")\n'
    source += "def other(*, x: int): ...\ndef thing(row, twice=2, *, a: int, b: list[str] = [], c: float | None = None): ...\n"
    found = read(tmp_path, source)
    assert found is not None
    assert (found.name, found.version, found.summary, found.constants) == ("thing", 3, "What it is.", {"LIST": ["a"]})
    assert {name: (p.annotation, p.default) for name, p in found.parameters.items()} == {
        "a": ("int", REQUIRED),
        "b": ("list[str]", []),
        "c": ("float | None", None),
    }


def test_a_class_has_the_parameters_of_its_init(tmp_path: Path) -> None:
    methods = "    def __init__(self, folder, *, bits: int = 4): ...\n    def call(self, *, x): ...\n"
    found = read(tmp_path, "VERSION = 1\nclass thing:\n" + methods)
    assert found is not None
    assert list(found.parameters) == ["bits"]


@pytest.mark.parametrize(
    ("annotation", "fits", "does_not"),
    [
        ("int", [0, -1, 10**30], [True, 1.0, "1", None]),
        ("float", [0, 1.5, -1], [True, float("nan"), float("inf"), "1"]),
        ("PositiveInt", [1], [0, -1, True, 1.5]),
        ("NonNegativeInt", [0, 1], [-1, False]),
        ("PositiveFloat", [1, 0.1], [0, -0.1, float("inf")]),
        ("NonNegativeFloat", [0, 0.1], [-0.1, float("nan")]),
        ("str", ["", "a"], [1, None]),
        ("bool", [True, False], [0, 1, "true"]),
        ("int | None", [None, 3], [2.5, "none"]),
        ("list[int]", [[], [1, 2]], [[1, "a"], (1,), 1, [True]]),
        ("list[str] | None", [None, ["a"]], [[None]]),
        ("Literal['a', 1]", ["a", 1], ["b", True, 1.0]),
        ("Literal['a']", ["a"], ["b"]),
        ("Scalars", [{}, {"a": True, "b": 1, "c": 0.5, "d": "x"}], [None, 1, "a", [], {"a": None}, {"a": [1]}, {"a": float("nan")}]),
    ],
)
def test_a_value_is_checked_against_its_annotation(annotation: str, fits: list[Any], does_not: list[Any]) -> None:
    parsed = ast.parse(annotation, mode="eval").body
    assert [value for value in fits if not spec._fits(parsed, value)] == []
    assert [value for value in does_not if spec._fits(parsed, value)] == []


@pytest.mark.parametrize("annotation", ["dict[str, int]", "Path", "Any", "tuple[int, ...]", "list"])
def test_an_annotation_that_cannot_be_checked_is_an_error_of_the_component(annotation: str) -> None:
    with pytest.raises(TypeError, match="which the schema cannot check"):
        spec._fits(ast.parse(annotation, mode="eval").body, 1)


@pytest.mark.parametrize(
    ("annotation", "value", "written"),
    [("float", 1, "1.0"), ("float | None", 1, "1.0"), ("float", -0.0, "0.0"), ("list[float]", [1, 2.5], "[1.0, 2.5]"), ("int", 1, "1")],
)
def test_equal_settings_are_written_alike(annotation: str, value: Any, written: str) -> None:
    assert repr(spec._as_annotated(ast.parse(annotation, mode="eval").body, value)) == written


def test_a_name_far_from_all_gets_only_the_list() -> None:
    assert did_you_mean("qqq", ["b", "a"]) == "known: a, b"
    assert did_you_mean("xsun", ["xsum", "arc"]) == "did you mean 'xsum'? (known: arc, xsum)"


def test_an_unknown_kind_of_component_is_a_bug_of_ours() -> None:
    with pytest.raises(KeyError):
        components("loss function")
    with pytest.raises(InputError):
        spec.component("task", "none", "score.tasks")
