"""Rows on both sides of the split are found by their tokens, whichever record batch they lie in."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from kdray.artifacts.rows import SCHEMA, Rows, rows_writer, write_split
from kdray.data.repeated import repeated


def test_what_is_held_out_and_trained_on_is_counted_a_row_and_nothing_else(tmp_path: Path) -> None:
    ids = [[1, 2, 3], [1, 2], [1, 2, 3], [4], [1, 2, 3], [4], [5], [5], [3, 2, 1]]
    heldout, test = [0, 4, 6, 7], [1, 3]
    records = [{"source_row": i, "input_ids": some, "n_prompt": 1} for i, some in enumerate(ids)]
    with rows_writer(tmp_path) as writer:
        for start in (0, 2, 3):
            end = {0: 2, 2: 3, 3: len(ids)}[start]
            writer.write_table(pa.Table.from_pylist(records[start:end], schema=SCHEMA))
    write_split(tmp_path, heldout, test)
    assert repeated(Rows(tmp_path)) == 3  # rows 0 and 4 are row 2's, row 3 is row 5's; 6 and 7 are on one side
    write_split(tmp_path, [0, 2, 4], [3, 5])
    assert repeated(Rows(tmp_path)) == 0
