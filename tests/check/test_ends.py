"""An end that the teacher has and the student does not is warned of, where the student would learn it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from kdray.check.checks import check_grid
from kdray.spec import load_grid
from kdray.store import Outer, Store
from tests.conftest import TinyGrid

TOKENS = ("a", "<text>", "<turn>")
SOFT = {"teacher.tune": None}


def check(
    grid: TinyGrid, student: object, teacher: object, changes: Mapping[str, Any] = SOFT, eos: object = "<text>"
) -> list[str]:
    """`student` and `teacher`: what their settings name as ends; None for no such file."""
    for role, ends in (("student", student), ("teacher", teacher)):
        grid.model(role, tokens=TOKENS)
        folder = grid.folder / role
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    spec = load_grid(grid(dict(changes)))
    return check_grid(spec, Outer(Store(spec.runtime.store).root), offline=True)


@pytest.mark.parametrize("student", [1, [1], [0, 1], None])
def test_an_end_of_the_teacher_that_is_none_of_the_students_is_named(student: object, tiny_grid: TinyGrid) -> None:
    """As of a Qwen2.5 or Llama-3.1 that was never taught to chat, beside an instructed one."""
    (note,) = check(tiny_grid, student, [2, 1])
    assert note.startswith("teacher.model: it may end a response by '<turn>', at which the student does not stop")


@pytest.mark.parametrize(
    ("student", "teacher", "changes", "eos"),
    [
        ([1, 2], 2, SOFT, "<text>"),
        ([2, 1], 1, SOFT, "<text>"),
        (1, [1, 2], SOFT, {"content": "<turn>"}),  # the tokenizer's own end always is one
        (1, [1, 99], SOFT, "<text>"),  # beyond the vocabulary
        (1, [1, 2], {}, "<text>"),  # tuned on the rows
        (1, [1, 2], SOFT | {"axes.alpha": [0]}, "<text>"),
        (1, [1, 2], SOFT | {"soft_labels": {"align": "text"}}, "<text>"),
        (None, None, SOFT, "<text>"),
    ],
)
def test_ends_that_the_student_has_or_never_learns_are_no_trouble(
    student: object, teacher: object, changes: Mapping[str, Any], eos: object, tiny_grid: TinyGrid
) -> None:
    assert check(tiny_grid, student, teacher, changes, eos) == []


def test_without_such_a_file_the_configuration_has_the_ends(tiny_grid: TinyGrid) -> None:
    check(tiny_grid, 1, 1)
    for role, ends in (("student", 1), ("teacher", [1, 2])):
        (tiny_grid.folder / role / "generation_config.json").unlink()
        config = json.loads((tiny_grid.folder / role / "config.json").read_text())
        (tiny_grid.folder / role / "config.json").write_text(json.dumps(config | {"eos_token_id": ends}))
    spec = load_grid(tiny_grid(SOFT))
    assert len(check_grid(spec, Outer(Store(spec.runtime.store).root), offline=True)) == 1
