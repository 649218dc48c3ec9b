"""Kept answers that are damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdray.spec.errors import InputError
from kdray.stages.generate import SCHEMA, read_answers

ROW: dict[str, Any] = {name: [] if pa.types.is_list(SCHEMA.field(name).type) else "x" for name in SCHEMA.names} | {"example": 0}


def written(path: Path, row: dict[str, Any]) -> None:
    pq.write_table(pa.Table.from_pylist([row]), path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: written(path, {"a": 1}),
        lambda path: written(path, ROW | {"example": "x"}),
        lambda path: written(path, ROW | {"example": None}),
        lambda path: path.rename(path.with_name("part-x.parquet")),
    ],
)
def test_damaged_answers_are_said_with_their_folder(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = tmp_path / "part-00000-x.parquet"
    written(path, ROW)
    assert read_answers(tmp_path) == [ROW]
    damage(path)
    with pytest.raises(InputError, match=rf"^answers: {tmp_path} is damaged \(.+\); generate them again$"):
        read_answers(tmp_path)
