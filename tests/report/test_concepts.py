"""The figure of concepts before and after."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from matplotlib.figure import Figure

from kdray.artifacts.curated import COUNTED, read_concepts, write_concepts
from kdray.report import concepts
from kdray.report.concepts import draw_concepts

ROWS = [("en", "quoll", 3, 1.0, 3), ("en", "dog", 60, 0.1, 7), ("en", "unseen", 0, 1.0, 0), ("de", "hund", 20, 0.5, 9)]


def test_each_language_has_its_concepts_by_size_before_and_after(tmp_path: Path) -> None:
    write_concepts(
        tmp_path, pa.Table.from_pylist([dict(zip(COUNTED.names, row, strict=True)) for row in ROWS], COUNTED)
    )
    axis = Figure().subplots()
    concepts._draw(axis, read_concepts(tmp_path))
    drawn = {str(line.get_label()): line.get_ydata().tolist() for line in axis.lines}  # pyright: ignore[reportAttributeAccessIssue]
    assert drawn == {
        "en: among all rows": [60, 3],
        "en: among rows kept": [7, 3],
        "de: among all rows": [20],
        "de: among rows kept": [9],
    }
    assert draw_concepts(tmp_path, read_concepts(tmp_path)).width > 0
    assert {path.name for path in tmp_path.glob("concepts.*")} == {"concepts.parquet", "concepts.svg", "concepts.png"}
