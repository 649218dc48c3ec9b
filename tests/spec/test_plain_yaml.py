"""Grid files are plain YAML: what is more is refused, and nothing is taken for what it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdray.spec import InputError
from kdray.spec.load import parse_grid
from tests.conftest import TinyGrid
from tests.spec.wrong import cases, check

YAML = {
    "a Python tag": (
        "a: 1\nb: !!python/object/apply:os.system [echo]\n",
        ["grid:2: the YAML tag", "python/object", "no tags"],
    ),
    "a made-up tag": ("a: !foo 1\n", [":1: the YAML tag !foo", "no tags"]),
    "a standard tag": ("a: !!str 1\n", [":1: the YAML tag", "no tags"]),
    "the empty tag": ("a: ! 1\n", [":1: the YAML tag !", "no tags"]),
    "a duplicate key": ("name: a\nfamily: b\nname: c\n", [":3: duplicate key 'name'", "each key once"]),
    "a duplicate key deep down": ("axes: {lr: [1], lr: [2]}\n", [":1: duplicate key 'lr'"]),
    "a key that is a number": ("1: a\n", [":1: key 1 is not a string"]),
    "a key that is a list": ("? [a]\n: b\n", ["key ['a'] is not a string"]),
    "a list": ("- a\n- b\n", ["holds a list; write a mapping of the fields name"]),
    "a word": ("hello\n", ["holds a single value"]),
    "nothing": ("", [": empty; write a mapping"]),
    "only comments": ("# nothing here\n", [": empty; write a mapping"]),
    "no YAML": ("a: [1\n", ["write plain YAML"]),
    "a tab": ("a:\n\tb: 1\n", [":2: ", "write plain YAML"]),
    "a control character": ("a: \x00\n", ["not YAML", "write plain YAML"]),
    "two documents": ("a: 1\n---\nb: 2\n", [":2: ", "a second document"]),
    "a list that holds itself": ("a: &a [*a]\n", ["grid:1: the YAML alias *a", "write the value out"]),
    "a bomb": ("a: &a [x, x]\nb: &b [*a, *a]\n", [":2: the YAML alias *a"]),
    "nesting without end": ("a: " + "[" * 600 + "]" * 600, ["grid: ", "write plain YAML"]),
    "half a character": ('name: "\\ud800"', ["grid:1: found invalid Unicode character escape code"]),
    "nesting that pydantic refuses": ("a: " + "[" * 300 + "]" * 300, ["grid: is nested too deep"]),
    "a number of ten thousand digits": ("a: " + "1" * 10_000, ["not YAML"]),
}


@pytest.mark.slow
@cases(YAML)
def test_what_is_not_plain_yaml_is_refused(wrong: str, said: list[str]) -> None:
    check(wrong, said)


def test_a_tag_is_never_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    with pytest.raises(InputError):
        parse_grid(f"a: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{mark}']]\n")
    assert not mark.exists()


@pytest.mark.parametrize("written", ["1e-5", "1.0e-5", "0.00001", "1E-05", ".1e-4", "10e-6"])
def test_a_number_may_be_written_in_every_usual_way(written: str, tiny_grid: TinyGrid) -> None:
    text = tiny_grid.text({"axes.lr": "LR"}).replace("LR", f"[{written}]")
    assert parse_grid(text).axes.lr == [1e-5]


@pytest.mark.parametrize("written", ["no", "on", "1:30", "2020-01-01", "0x10", "1_000", "'1'"])
def test_what_yaml_1_1_would_turn_into_something_else_stays_text(written: str, tiny_grid: TinyGrid) -> None:
    text = tiny_grid.text({"question": "HERE-IT-IS"}).replace("HERE-IT-IS", written)
    assert parse_grid(text.replace(str(tiny_grid.folder) + "-IT-IS", written)).question == written.strip("'")
