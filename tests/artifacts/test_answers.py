"""Kept answers: in the order of their examples, damaged ones said, and what they cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdray.artifacts.answers import (
    SCHEMA,
    SECONDS,
    THOUGHTS,
    answers_to_show,
    measured_cost,
    read_answers,
    write_answers,
)
from kdray.artifacts.parts import all_parts
from kdray.artifacts.tables import write_table_part
from tests.artifacts.conftest import Make, refused

ROW: dict[str, Any] = {name: [] if pa.types.is_list(SCHEMA.field(name).type) else "x" for name in SCHEMA.names} | {
    "example": 0
}


def over(path: Path, row: dict[str, Any]) -> None:
    pq.write_table(pa.Table.from_pylist([row]), path)


def test_answers_come_back_in_the_order_of_their_examples(tmp_path: Path) -> None:
    rows = [ROW | {"example": i, "output_ids": [i], "error": None} for i in (4, 1, 3)]
    write_answers(tmp_path, 0, rows[:1], 1.0)
    write_answers(tmp_path, 1, rows[1:], 1.0)
    assert read_answers(tmp_path) == [rows[1], rows[2], rows[0]]


def test_answers_that_were_kept_with_their_thoughts_are_told_apart_by_whoever_can(tmp_path: Path) -> None:
    write_table_part(tmp_path, 0, pa.Table.from_pylist([{name: ROW[name] for name in ROW if name not in THOUGHTS}]))
    assert read_answers(tmp_path) == [ROW | {"thought_ids": [], "thought": None, "thought_end": None}]
    assert read_answers(tmp_path, lambda row: row | {"thought": "told"})[0]["thought"] == "told"
    write_answers(tmp_path, 1, [ROW], 1.0)
    assert [row["thought"] for row in read_answers(tmp_path, lambda row: row | {"thought": "told"})] == ["told", "x"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: over(path, {"a": 1}), "no column 'example'"),
        (
            lambda path: over(path, {name: value for name, value in ROW.items() if name != "thought"}),
            "no column 'thought'",
        ),
        (lambda path: over(path, ROW | {"example": "x"}), ".*parse.*"),
        (lambda path: over(path, ROW | {"example": None}), "nothing in column 'example'"),
        (lambda path: path.write_bytes(b""), ".+"),
        (lambda path: path.write_bytes(path.read_bytes()[:-20]), ".+"),
    ],
)
def test_damaged_answers_are_said_with_their_file(made: Make, damage: Callable[[Path], object], reason: str) -> None:
    artifact = made(lambda folder: write_answers(folder, 0, [ROW], 1.0))
    (path,) = all_parts(artifact.path)
    (artifact.folder / "DONE").unlink()  # which would say it by the size alone
    damage(path)
    refused(path, reason, lambda: read_answers(artifact.path))
    if "thought" not in reason:
        refused(path, reason, lambda: answers_to_show(artifact.path, 1))


def part(folder: Path, index: int, lengths: list[int], metadata: dict[bytes, str]) -> None:
    write_table_part(
        folder, index, pa.table({"output_ids": [[1] * n for n in lengths]}).replace_schema_metadata(metadata)
    )


def test_a_cost_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    part(tmp_path, 0, [3, 5], {SECONDS: "1.5"})
    part(tmp_path, 1, [0], {SECONDS: "0.25"})
    assert measured_cost(tmp_path) == {"answer_tokens": 8, "answer_seconds": 1.75}
    part(tmp_path, 2, [4], {})
    assert measured_cost(tmp_path) == {}, "of one part it is not known"


def test_thoughts_are_tokens_that_were_paid_for(tmp_path: Path) -> None:
    write_answers(tmp_path, 0, [ROW | {"output_ids": [1, 2], "thought_ids": [3, 4, 5]}], 2.0)
    assert measured_cost(tmp_path) == {"answer_tokens": 5, "answer_seconds": 2.0}


def test_what_a_person_reads_is_of_the_last_two_parts(tmp_path: Path) -> None:
    for i in range(4):
        write_answers(tmp_path, i, [ROW | {"example": 10 * i + j} for j in range(2)], 1.0)
    shown = answers_to_show(tmp_path, 3)
    assert [row["example"] for row in shown] == [20, 21, 30]
    assert list(shown[0]) == ["example", "source", "references", "thought", "answer"]
