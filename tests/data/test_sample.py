"""What the check says of the first rows of a file, before anything is prepared."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kdray.data.sample import ROWS, sampled_notes
from kdray.spec import InputError, load_grid
from kdray.store import Outer
from tests.conftest import Run, TinyGrid
from tests.tiny import write_tokenizer

COLUMNS = {"name": "columns", "instruction": "ask", "context": "docs", "response": "answer"}


def notes(grid: TinyGrid, rows: list[dict[str, Any]], **changes: Any) -> list[str]:
    write_tokenizer(grid.folder / "student")
    (grid.folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"data.source": "file:HERE/mine.jsonl", "data.recipe": COLUMNS, **changes}
    return sampled_notes(load_grid(grid(given)), Outer(grid.folder / "store"))


def row(passages: int, **changes: Any) -> dict[str, Any]:
    return {"ask": "Who?", "docs": ["Ada is in Paris ."] * passages, "answer": "Ada"} | changes


def test_prompts_that_are_too_long_are_counted_by_the_students_tokens(tiny_grid: TinyGrid) -> None:
    rows = [row(1)] * 60 + [row(50)] * 60 + [row(50, answer=" ")] * 30
    (note,) = notes(tiny_grid, rows)
    assert note.startswith(
        "at least 60 of 120 first rows are dropped: their prompts are longer than data.max_prompt 256"
    )
    assert notes(tiny_grid, rows, **{"data.max_prompt": 800, "data.max_length": 900}) == []
    assert notes(tiny_grid, [row(1)] * 5) == []


def test_no_more_than_the_first_rows_are_read(tiny_grid: TinyGrid) -> None:
    assert notes(tiny_grid, [row(1)] * ROWS + [row(50)] * 2 * ROWS) == []


def test_a_row_that_the_recipe_cannot_read_is_named(tiny_grid: TinyGrid) -> None:
    choices = {"label": ["A"], "text": ["so", "no"]}
    rows = [{"question": "Q?", "choices": choices, "answerKey": "A"}]
    with pytest.raises(InputError, match="column 'choices' holds 1 letters and 2 texts in row 1"):
        notes(tiny_grid, rows, **{"data.recipe": "commonsense_qa"})


def test_the_check_prints_it_and_goes_on(tiny_grid: TinyGrid, run: Run) -> None:
    notes(tiny_grid, [row(50)] * 20)
    (tiny_grid.folder / "teacher" / "tokenizer.json").write_bytes(
        (tiny_grid.folder / "student" / "tokenizer.json").read_bytes()
    )
    code, stdout, stderr = run("check", tiny_grid.folder / "grid.yaml", "--offline")
    assert (code, stderr) == (0, "")
    assert "note at least 20 of 20 first rows are dropped" in stdout
