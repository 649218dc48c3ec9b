"""What the source says of a component is what Python says of it, and the schema can check all of it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kdray.spec import components as spec
from kdray.spec import declare
from kdray.spec.components import Component, D, components, load, module_of
from kdray.spec.declare import KINDS, Declared
from kdray.spec.errors import InputError, did_you_mean
from kdray.spec.parameters import REQUIRED, Parameter

ALL = [(kind, name) for kind in KINDS for name in components(kind)]
PARAMETRISED = [(kind, name) for kind, name in ALL if kind is not declare.Stage]


def test_every_kind_has_components() -> None:
    assert {kind for kind, _ in ALL} == set(KINDS)


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_component_says_what_it_is(kind: type[Declared], name: str) -> None:
    assert components(kind)[name].summary.endswith((".", ":"))


@pytest.mark.parametrize(("kind", "name"), PARAMETRISED)
def test_the_schema_can_check_every_parameter_and_its_default(kind: type[Declared], name: str) -> None:
    for parameter in components(kind)[name].parameters.values():
        if parameter.default is REQUIRED:
            with pytest.raises(ValidationError):
                parameter.check({"no": ["such", "value"]})
        else:
            assert repr(parameter.check(parameter.default)) == repr(parameter.default), "written as it enters ids"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), PARAMETRISED)
def test_source_and_import_agree(kind: type[Declared], name: str) -> None:
    read = components(kind)[name]
    spelt = f"{name}:any" if isinstance(read.declared, declare.ChoiceTask) and read.declared.named else name
    made = load(kind, spelt)
    called = made.__init__ if inspect.isclass(made) else made
    keywords = [p for p in inspect.signature(called).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert {p.name: (p.annotation, REQUIRED if p.default is p.empty else p.default) for p in keywords} == {
        name: (parameter.annotation, parameter.default) for name, parameter in read.parameters.items()
    }
    assert read.declared == module_of(kind, spelt).DECLARED


def read(tmp_path: Path, source: str, kind: type[D] = declare.Task) -> Component[D]:
    path = tmp_path / "thing.py"
    path.write_text(source)
    return spec.read(kind, path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("VERSION = 1", "a task without a line DECLARED = ...; write DECLARED = declare.Task(version=1)"),
        (
            "DECLARED = declare.ChoiceTask(version=1, short={}, lower_is_bettr=())",
            "lower_is_bettr: Unexpected keyword argument",
        ),
        ("DECLARED = declare.ChoiceTask(version=1)", "short: Field required"),
        ("DECLARED = declare.ChoiceTask(short={'acc': 'arc'})", "version: Field required"),
        ("DECLARED = declare.ChoiceTask(version='1', short={})", "version: Input should be a valid integer"),
        ("DECLARED = declare.ChoiceTask(version=0, short={})", "version: Input should be greater than 0"),
        (
            "DECLARED = declare.ChoiceTask(version=1, short={'acc': 'much_too_long_a_name'})",
            "short.acc: String should match",
        ),
        (
            "DECLARED = declare.HeldoutTask(version=1, short={'ce': 'ce'}, lower_is_better=('kl',))",
            "lower_is_better names kl",
        ),
        (
            "DECLARED = declare.AnswerTask(version=1, short={'em': 'em'}, gives=('sources',))",
            "gives.0: Input should be 'reference'",
        ),
        (
            "DECLARED = declare.AnswerTask(version=1, short={'em': 'em'}, gives=('source',), config='x')",
            "config: Unexpected keyword",
        ),
        (
            "DECLARED = declare.Loss(version=1)",
            "declares declare.Loss(version=1); in this folder it must be a declare.Task",
        ),
        (
            "DECLARED = declare.Tusk(version=1)",
            "declare.Tusk(version=1); write one of the classes of declare, with its values written out",
        ),
        ("DECLARED = declare.ChoiceTask(version=1 + 1, short=NAMES)", "with its values written out"),
        ("DECLARED = 1", "declares 1; in this folder it must be a declare.Task"),
    ],
)
def test_a_misspelt_declaration_is_an_error_that_names_the_file(line: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, f'"""What it is."""\n{line}\n')
    assert str(tmp_path / "thing.py") in str(caught.value)
    assert said in str(caught.value)


READS = {
    "a parameter that came later": ("Loss(version=1, later=('beta',))", "alpha", "beta"),
    "a document's column": ("Recipe(version=1, column_parameters=('text',))", "title", "text"),
    "a form's width": ("Form(version=1, kept=(declare.Kept('ids', 'id', (declare.Param('k'),)),))", "dtype", "k"),
    "a form's type": ("Form(version=1, kept=(declare.Kept('x', declare.Param('dtype')),))", "k", "dtype"),
    "a form's choice": ("Form(version=1, kept=(declare.Kept('ids', 'id', when={'exact': True}),))", "k", "exact"),
    "held-out rows": ("HeldoutTask(version=1, short={'ce': 'ce'})", "most", "limit"),
    "choices": ("ChoiceTask(version=1, short={'acc': 'x'})", "source, limit, shots, chat_template", "shots_source"),
    "answers": ("AnswerTask(version=1, short={'em': 'x'}, gives=())", "source, limit, max_new_tokens", "prompt"),
    "answers to the grid's rows": (
        "AnswerTask(version=1, short={'em': 'x'}, gives=(), rows='train')",
        "limit",
        "max_new_tokens",
    ),
    "a metric's model": ("Metric(version=1, scores=('x',), models={'encoder': True})", "model", "encoder"),
    "a metric's runtime": ("Metric(version=1, scores=('x',), runtime=('batch',))", "model", "batch"),
    "more answers": ("Metric(version=1, scores=('x',), samples=('samples',))", "samples", "temperature"),
    "nltk's data": ("Metric(version=1, scores=('x',), nltk_data={'synonyms': 'corpora/wordnet'})", "words", "synonyms"),
    "a decoding's file": ("Decoding(version=1, references={'guide': ('lens',)})", "layers", "guide"),
    "a decoding's layers": ("Decoding(version=1, layers=True)", "guide", "layers"),
}


@pytest.mark.parametrize(("says", "has", "lacks"), READS.values(), ids=[name.replace(" ", "-") for name in READS])
def test_a_component_has_the_parameters_that_are_read_of_it(says: str, has: str, lacks: str, tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if issubclass(getattr(declare, says.partition("(")[0]), kind))
    source = (
        f"DECLARED = declare.{says}\ndef thing(row, *, {', '.join(f'{name}: int' for name in has.split(', '))}): ...\n"
    )
    with pytest.raises(InputError, match=f"thing has no keyword-only parameter {lacks}; kdray reads of it: "):
        read(tmp_path, source, kind)
    read(tmp_path, source.replace("row, *,", f"row, *, {lacks}: int,"), kind)


def test_only_keyword_arguments_of_the_files_own_name_are_parameters(tmp_path: Path) -> None:
    source = '"""What it is.\n\nMore."""\nDECLARED = declare.Loss(version=3, sparse=True)\n'
    source += (
        "def other(*, x: int): ...\ndef thing(row, twice=2, *, a: int, b: list[str] = [], c: float | None = None):"
        " ...\n"
    )
    found = read(tmp_path, source, declare.Loss)
    assert (found.name, found.summary, found.declared) == ("thing", "What it is.", declare.Loss(version=3, sparse=True))
    assert {name: (p.annotation, p.default) for name, p in found.parameters.items()} == {
        "a": ("int", REQUIRED),
        "b": ("list[str]", []),
        "c": ("float | None", None),
    }


def test_a_class_has_the_parameters_of_its_init(tmp_path: Path) -> None:
    methods = "    def __init__(self, folder, *, bits: int = 4): ...\n    def call(self, *, x): ...\n"
    found = read(tmp_path, "DECLARED = declare.Engine(version=1)\nclass Thing:\n" + methods, declare.Engine)
    assert list(found.parameters) == ["bits"]
    assert found.attribute == "Thing"


@pytest.mark.parametrize(("stem", "called"), [("top_k", "TopK"), ("fsdp2", "FSDP2"), ("hhem", "HHEM")])
def test_a_class_is_named_in_capitals(tmp_path: Path, stem: str, called: str) -> None:
    path = tmp_path / f"{stem}.py"
    for name, is_one in ((called, True), (stem, False), (f"Other{called}", False)):
        path.write_text(f"DECLARED = declare.Engine(version=1)\nclass {name}: ...\n")
        if is_one:
            assert spec.read(declare.Engine, path).attribute == called
        else:
            with pytest.raises(InputError, match=f"has no function {stem} or class"):
                spec.read(declare.Engine, path)


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
        ("list[int]", [[], [1, 2]], [[1, "a"], 1, [True]]),
        (
            "Scalars",
            [{}, {"a": True, "b": 1, "c": 0.5, "d": "x"}],
            [None, 1, "a", [], {"a": None}, {"a": [1]}, {"a": float("nan")}],
        ),
        ("list[str] | None", [None, ["a"]], [[None]]),
        ("Literal['a', 1]", ["a", 1], ["b", True, 1.0]),
        ("Literal['a']", ["a"], ["b"]),
    ],
)
def test_a_value_is_checked_against_its_annotation(annotation: str, fits: list[Any], does_not: list[Any]) -> None:
    parameter = Parameter(annotation, REQUIRED)
    assert [parameter.check(value) for value in fits] == fits
    for value in does_not:
        with pytest.raises(ValidationError):
            parameter.check(value)


@pytest.mark.parametrize("annotation", ["Path", "Any", "tuple[int, ...]", "list[Path]", "int |"])
def test_an_annotation_that_cannot_be_checked_is_an_error_of_the_component(annotation: str) -> None:
    with pytest.raises(TypeError, match="which the schema cannot check"):
        Parameter(annotation, REQUIRED).check(1)


@pytest.mark.parametrize(
    ("annotation", "value", "written"),
    [
        ("float", 1, "1.0"),
        ("float | None", 1, "1.0"),
        ("float", -0.0, "0.0"),
        ("NonNegativeFloat | None", -0.0, "0.0"),
        ("list[float]", [1, 2.5], "[1.0, 2.5]"),
        ("int", 1, "1"),
    ],
)
def test_equal_settings_are_written_alike(annotation: str, value: Any, written: str) -> None:
    assert repr(Parameter(annotation, REQUIRED).check(value)) == written


def test_a_name_far_from_all_gets_only_the_list() -> None:
    assert did_you_mean("qqq", ["b", "a"]) == "known: a, b"
    assert did_you_mean("xsun", ["xsum", "arc"]) == "did you mean 'xsum'? (known: arc, xsum)"


def test_an_unknown_component_is_told_by_its_kind_as_users_call_it() -> None:
    with pytest.raises(InputError, match=r"score.tasks: no task 'none'"):
        spec.component(declare.Task, "none", "score.tasks")
    with pytest.raises(InputError, match=r"soft_labels.form: no soft labels 'hiden'; did you mean 'hidden'"):
        spec.component(declare.Form, "hiden", "soft_labels.form")
