"""Components of installed distributions: read without being run, known by name, and one line where something is wrong
with them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from kdray.plan import make_plan
from kdray.spec import declare, load_grid
from kdray.spec.components import component, components, load, module_of
from kdray.spec.declare import KINDS
from kdray.spec.errors import InputError
from kdray.store import Outer
from tests.conftest import Install, Run, TinyGrid

LOSS = (
    '"""A loss."""\nDECLARED = declare.Loss(version=1)\ndef mine(student, teacher, *, beta: float = 0.5): return'
    " student\n"
)
HEAVY = "raise RuntimeError('a plan runs none of this')\n"
ENTRY = {"kdray.losses": {"mine": "pack.inner.mine"}}
WHERE = "kdray-example 0.1.0: entry point 'mine = pack.inner.mine' in kdray.losses: "


def give(install: Install, source: str = LOSS) -> None:
    """A loss in a package of packages, none of which can be run."""
    for package in ("pack", "pack/inner"):
        install.module(f"{package}/__init__.py", HEAVY)
    install.module("pack/inner/mine.py", source)
    install(ENTRY)


def test_every_kind_but_stages_has_a_group_of_its_own() -> None:
    groups = [kind.group for kind in KINDS if kind is not declare.Stage]
    assert len(set(groups)) == len(groups)
    assert all(group.startswith("kdray.") for group in groups)
    assert declare.Stage.group == ""


def test_a_component_is_read_and_nothing_of_it_is_run(install: Install) -> None:
    give(install, LOSS + HEAVY)
    found = components(declare.Loss)["mine"]
    assert (found.summary, found.declared, found.module) == ("A loss.", declare.Loss(version=1), "pack.inner.mine")
    assert {name: (parameter.annotation, parameter.default) for name, parameter in found.parameters.items()} == {
        "beta": ("float", 0.5)
    }
    assert found.origin == {"distribution": {"name": "kdray-example", "version": "0.1.0"}}
    assert found.description == "A loss. (kdray-example 0.1.0)"
    assert not {"pack", "pack.inner", "pack.inner.mine"}.intersection(sys.modules)
    assert components(declare.Loss)["jsd"].origin == {}


def test_its_name_is_among_those_that_are_known(install: Install) -> None:
    give(install)
    with pytest.raises(
        InputError, match=r"objective.loss: no loss 'mime'; did you mean 'mine'\? \(known: .*jsd, mine, "
    ):
        component(declare.Loss, "mime", "objective.loss")


def test_it_is_loaded_as_any_other(install: Install) -> None:
    install.module("mine.py", "from kdray.spec import declare\n" + LOSS)
    install({"kdray.losses": {"mine": "mine"}})
    assert load(declare.Loss, "mine")(7, None) == 7
    assert module_of(declare.Loss, "mine").DECLARED.version == 1


@pytest.mark.parametrize(("named", "known"), [("Kdray_Example.x", "kdray-example-x"), ("a--b", "a-b")])
def test_a_distribution_has_one_name_however_it_is_written(named: str, known: str, install: Install) -> None:
    install.module("mine.py", LOSS)
    install({"kdray.losses": {"mine": "mine"}}, name=named)
    assert components(declare.Loss)["mine"].origin["distribution"]["name"] == known


# what is wrong


SOURCES = {
    "no declaration": (
        "def mine(): ...",
        "a loss without a line DECLARED = ...; write DECLARED = declare.Loss(version=1)",
    ),
    "another kind": ("DECLARED = declare.Schedule(version=1)", "in kdray.losses it must be a declare.Loss"),
    "a misspelt field": ("DECLARED = declare.Loss(version=1, sparce=True)", "sparce: Unexpected keyword argument; see"),
    "no function": ("DECLARED = declare.Loss(version=1)\nmine = len", "has no function mine or class Mine; that is"),
    "a default that is not written out": (LOSS.replace("0.5", "HALF"), "the default HALF; write its value out"),
    "a type that cannot be checked": (
        LOSS.replace("float", "Path"),
        "annotated 'Path', which the schema cannot check; write one of the",
    ),
    "a type that is no type": (LOSS.replace("float", "int.x"), "annotated 'int.x', which the schema cannot check"),
    "a type without choices": (LOSS.replace("float", "Literal"), "annotated 'Literal', which the schema cannot check"),
    "no Python": ("def def", "pack.inner.mine is not Python (invalid syntax"),
    "a zero byte": ("x = 1\0", "pack.inner.mine "),
    "no text": ("# coding: nonsense\n", "pack.inner.mine cannot be read ("),
}


@pytest.mark.parametrize(("source", "said"), SOURCES.values(), ids=[name.replace(" ", "-") for name in SOURCES])
def test_a_module_that_is_no_component_is_one_line(
    source: str, said: str, install: Install, run: Run, tiny_grid: TinyGrid
) -> None:
    give(install, source)
    code, stdout, stderr = run("plan", tiny_grid())
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert stderr.startswith("error " + WHERE.removesuffix(": "))
    assert said in stderr


@pytest.mark.parametrize(
    "module", ["nowhere", "pack.nowhere", "pack.inner.mine.deeper", "pack.inner.mine:mine", "pack..mine", "ghost"]
)
def test_a_module_that_is_not_there_is_one_line(module: str, install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ghost", ModuleType("ghost"))  # which came from nowhere
    give(install)
    install({"kdray.metrics": {"other": module}}, name="second")
    with pytest.raises(InputError) as caught:
        components(declare.Metric)
    where = f"second 0.1.0: entry point 'other = {module}' in kdray.metrics: "
    assert str(caught.value) == f"{where}there is no module {module}; correct second, or uninstall it"


@pytest.mark.parametrize("module", ["pack", "_heapq"])
def test_a_module_without_a_source_is_one_line(module: str, install: Install) -> None:
    (install.site / "pack").mkdir()
    install({"kdray.losses": {"mine": module}})
    with pytest.raises(InputError, match=f"{module} is no module with a source in Python"):
        components(declare.Loss)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nowhere", "(ModuleNotFoundError: No module named 'nowhere')"),
        ("1 / 0", "(ZeroDivisionError: division by zero)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(source: str, said: str, install: Install) -> None:
    install.module("mine.py", f"from kdray.spec import declare\n{LOSS}{source}\n")
    install({"kdray.losses": {"mine": "mine"}})
    with pytest.raises(InputError) as caught:
        load(declare.Loss, "mine")
    assert (
        str(caught.value)
        == f"kdray-example 0.1.0: entry point 'mine = mine' in kdray.losses: cannot be imported {said}; correct"
        " kdray-example, or uninstall it"
    )


def test_a_name_of_kdrays_own_is_taken(install: Install, run: Run, tiny_grid: TinyGrid) -> None:
    install.module("mine.py", LOSS)
    install({"kdray.losses": {"jsd": "mine"}})
    code, stdout, stderr = run("plan", tiny_grid())
    assert (code, stdout) == (2, "")
    said = "loss 'jsd' is both kdray's and kdray-example 0.1.0's"
    assert (
        stderr == f"error kdray.losses: {said}; a name has one meaning: uninstall kdray-example, or rename it there\n"
    )


def test_a_name_of_two_distributions_is_neithers(install: Install) -> None:
    install.module("mine.py", LOSS)
    install({"kdray.losses": {"mine": "mine"}})
    install({"kdray.losses": {"mine": "mine"}}, "second", "2.0")
    with pytest.raises(
        InputError,
        match=r"loss 'mine' is both kdray-example 0.1.0's and second 2.0's; .* uninstall second, or rename it there",
    ):
        components(declare.Loss)


def test_a_name_may_be_of_two_kinds(install: Install) -> None:
    install.module("mine.py", LOSS)
    install.module("other.py", LOSS.replace("Loss", "Schedule"))
    install({"kdray.losses": {"mine": "mine"}, "kdray.schedules": {"mine": "other"}})
    assert components(declare.Loss)["mine"].module == "mine"
    assert components(declare.Schedule)["mine"].module == "other"


def test_a_distribution_without_a_version_is_one_line(install: Install) -> None:
    install(ENTRY, version=None)
    with pytest.raises(
        InputError,
        match=r"entry point 'mine = pack.inner.mine' in kdray.losses: its distribution has no name or no version",
    ):
        components(declare.Loss)


# ids


def ids(path: Path) -> dict[str, str | None]:
    return {step.slug: step.id for step in make_plan(load_grid(path), Outer(path.parent / "store")).steps()}


@pytest.mark.slow
def test_ids_know_the_distribution_and_its_version(install: Install, tiny_grid: TinyGrid) -> None:
    plain = ids(tiny_grid())
    give(install)
    path = tiny_grid({"objective.loss": {"name": "mine", "beta": 1}})
    made = {step.slug: step for step in make_plan(load_grid(path), Outer(tiny_grid.folder / "store")).steps()}
    first = {slug: step.id for slug, step in made.items()}
    assert {slug for slug in first if first[slug] != plain[slug]} == {slug for slug in first if "a0.1" in slug}
    point = next(step for step in made.values() if step.kind == "train" and "a0.1" in step.slug)
    assert point.params["objective"]["loss"] == {
        "name": "mine",
        "version": 1,
        "params": {"beta": 1.0},
        "distribution": {"name": "kdray-example", "version": "0.1.0"},
    }
    info = install.site / "kdray_example-0.1.0.dist-info"
    info.rename(install.site / "kdray_example-0.2.0.dist-info")
    (install.site / "kdray_example-0.2.0.dist-info" / "METADATA").write_text("Name: kdray-example\nVersion: 0.2.0\n")
    install.look_again()
    second = ids(path)
    assert {slug for slug in second if second[slug] != first[slug]} == {slug for slug in second if "a0.1" in slug}
    assert ids(tiny_grid()) == plain, "what is installed and not used is in no id"


def test_a_decoding_without_parameters_still_says_whose_it_is(install: Install, tiny_grid: TinyGrid) -> None:
    """kdray's own go by their name alone."""
    install.module(
        "plainest.py",
        '"""Greedy."""\nDECLARED = declare.Decoding(version=1)\ndef plainest(model, tokenizer, prompts, room): ...\n',
    )
    install({"kdray.decodings": {"plainest": "plainest"}})
    path = tiny_grid({"score.decoding": ["greedy", "plainest"]})
    plan = make_plan(load_grid(path), Outer(tiny_grid.folder / "store"))
    entered = [score.generate.params["decoding"] for score in plan.scores if score.generate]
    own = {
        "name": "plainest",
        "version": 1,
        "params": {},
        "distribution": {"name": "kdray-example", "version": "0.1.0"},
    }
    assert [each for each in entered if each != "greedy"] == [own] * (len(entered) // 2)
