"""Prepared rows: what is written comes back, and a damaged file is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kdray.artifacts.curated import read_chosen, write_chosen
from kdray.artifacts.rows import ROWS, SCHEMA, SPLIT, Rows, rows_files, rows_writer, write_split
from kdray.spec import InputError
from tests.artifacts.conftest import Make, refused

ROW = {"instruction": "Say", "context": "", "response": "yes"}
RECORDS = [{"source_row": i, "input_ids": [1, 2, 3][: 2 + i % 2], "n_prompt": 1} | ROW for i in range(5)]


def write(folder: Path) -> None:
    with rows_writer(folder) as writer:
        for record in RECORDS:  # a batch each, as they stream by
            writer.write_table(pa.Table.from_pylist([record], schema=SCHEMA))
    write_split(folder, [0, 4], [2])


def test_rows_come_back(made: Make) -> None:
    artifact = made(write)
    rows = Rows(artifact.path)
    assert rows.table.to_pylist() == RECORDS
    assert (rows.heldout.tolist(), rows.test.tolist(), rows.train.tolist()) == ([0, 4], [2], [1, 3])
    assert (rows.lengths.tolist(), rows.response_lengths.tolist()) == ([2, 3, 2, 3, 2], [1, 2, 1, 2, 1])
    assert (rows.input_ids(1), rows.text(1, "response")) == ([1, 2, 3], "yes")
    assert rows_files(artifact.path) == sorted(artifact.path.iterdir())
    assert (artifact.path / SPLIT).read_text() == '{"heldout": [0, 4], "test": [2]}'  # as stores of today have it


def other_columns(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("a", pa.int64())])):
        pass


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        (ROWS, lambda path: path.write_bytes(b""), ".+"),
        (ROWS, lambda path: path.write_bytes(path.read_bytes()[:-9]), ".+"),
        (ROWS, lambda path: path.unlink(), "missing"),
        (ROWS, other_columns, "other columns than those of prepared rows"),
        (SPLIT, lambda path: path.write_text('{"heldout": [0, 4'), ".+"),
        (SPLIT, lambda path: path.write_text('{"heldout": [0, 4]}'), "no 'test'"),
        (SPLIT, lambda path: path.write_text('{"heldout": [5], "test": []}'), "no numbers of 5 rows"),
        (SPLIT, lambda path: path.write_text('{"heldout": [0.5], "test": []}'), "no numbers of 5 rows"),
        (SPLIT, lambda path: path.unlink(), "missing"),
    ],
)
def test_a_damaged_file_is_said(made: Make, name: str, damage: Callable[[Path], object], reason: str) -> None:
    artifact = made(write, lambda folder: damage(folder / name))
    refused(artifact.path / name, reason, lambda: Rows(artifact.path))


def test_of_a_choice_only_training_rows_are_trained_on(tmp_path: Path) -> None:
    write(tmp_path)
    write_chosen(tmp_path, {"balanced": np.array([0, 3]), "random": np.array([1])})
    chosen = Rows(tmp_path, (tmp_path, "balanced"))
    assert (Rows(tmp_path).train.tolist(), chosen.train.tolist()) == ([1, 3], [3])  # 0 is held out
    assert chosen.heldout.tolist() == [0, 4]
    assert Rows(tmp_path, (tmp_path, "random")).train.tolist() == [1]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"balanced": [-1]}', '{"balanced": ["1"]}', None])
def test_a_damaged_choice_is_one_line(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "chosen.json").write_text(content)
    with pytest.raises(InputError, match=r"chosen\.json: damaged"):
        read_chosen(tmp_path, "balanced")
