"""Which tokens begin together, through the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdray.artifacts.aligned import ALIGNED, Aligned, write_aligned
from kdray.spec.errors import InputError


def test_pairs_come_back_row_by_row(tmp_path: Path) -> None:
    write_aligned(tmp_path, [([0, 2], [1, 3]), ([], []), ([5], [4])], [0, -1, 7])
    aligned = Aligned(tmp_path)
    assert [aligned.pairs(row).tolist() for row in range(3)] == [[[0, 2], [1, 3]], [[], []], [[5], [4]]]
    assert aligned.first.tolist() == [0, -1, 7]


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{ALIGNED}: damaged \(missing\)"):
        Aligned(tmp_path)
