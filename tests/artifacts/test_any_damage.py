"""Artifacts' files with damage of any kind are read, or one line says which is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdray.artifacts.aligned import Aligned, write_aligned
from kdray.artifacts.answers import read_answers, write_answers
from kdray.artifacts.curve import read_growing_curve, write_curve
from kdray.artifacts.scores import read_rows, read_scores, write_scores
from kdray.artifacts.tables import read_table
from kdray.spec.errors import InputError
from tests.mutations import DAMAGED, damaged, loads_or_says_so
from tests.track.bench import ANSWER

Read = Callable[[Path], Any]


def answers(folder: Path) -> Read:
    write_answers(folder, 0, [ANSWER | {"example": i} for i in range(3)], 1.0)
    return read_answers


def scores(folder: Path) -> Read:
    write_scores(folder, {"ce": {"value": 1.0, "stderr": 0.1, "n": 8}}, [{"example": i, "ce": 1.0} for i in range(8)])
    return lambda folder: (read_scores(folder), read_rows(folder, ["example"], ["ce"]).to_pylist())


def curve(folder: Path) -> Read:
    step = {"examples": 2, "tokens": 3, "loss": 1.0, "ce": 1.0}
    write_curve(folder, [step | {"step": i} for i in range(1, 5)])
    return read_growing_curve


def aligned(folder: Path) -> Read:
    write_aligned(folder, [([0, 2], [1, 3]), ([5], [4])], [0, -1, 7])
    return lambda folder: Aligned(folder).pairs(1)


@pytest.mark.parametrize("write", [answers, scores, curve, aligned])
@DAMAGED
@given(data=st.data())
def test_a_damaged_file_is_read_or_named(tmp_path: Path, write: Callable[[Path], Read], data: st.DataObject) -> None:
    read = write(tmp_path)
    path = data.draw(st.sampled_from(sorted(tmp_path.iterdir())))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    loads_or_says_so(lambda: read(tmp_path))


def test_a_text_that_is_no_utf8_is_damage(tmp_path: Path) -> None:
    """A flipped bit in an answer, which Parquet has no checksum for."""
    texts = pa.StringArray.from_buffers(1, pa.py_buffer(b"\x00\x00\x00\x00\x02\x00\x00\x00"), pa.py_buffer(b"a\xff"))
    pq.write_table(pa.table({"answer": texts}), tmp_path / "part.parquet")
    with pytest.raises(InputError, match=r"part.parquet: damaged"):
        read_table(tmp_path / "part.parquet")
