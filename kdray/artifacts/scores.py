"""Scores, what `measure` leaves: `scores.json`, {metric: {value, stderr, n}}, and `examples.parquet`, one row an item.

That of a factual rate has also `factual.json`, its companions and what it depends on; that of a benchmark
`details.json`, lm-eval's results as they are and the bins of the calibration error; that of a metric which counts
something has the totals there, as `counts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kdray.artifacts.files import damaged, has_file, is_number, read_object
from kdray.artifacts.tables import columns_of, read_table
from kdray.store import io

# columns of rows: the parts [begin, end) of an answer that a metric calls unsupported, and those that a lens doubts
SPANS, DOUBTED = "spans", "doubted"
SCORES, ROWS, FACTUAL, DETAILS = "scores.json", "examples.parquet", "factual.json", "details.json"


@dataclass(frozen=True)
class Score:
    """One metric of one model on one task; `stderr` is over the `n` examples."""

    value: float
    stderr: float
    n: int


def write_scores(folder: Path, scores: Mapping[str, Mapping[str, float]], rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep scores, {metric: {value, stderr, n}}, and the rows behind them; a row may lack what others have."""
    names = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]), folder / ROWS)
    io.put_json(folder / SCORES, scores)


def read_scores(folder: Path) -> dict[str, Score]:
    """The scores by metric.

    Raises:
        InputError: they are missing or damaged.
    """
    path = folder / SCORES
    content, names = read_object(path), set(Score.__dataclass_fields__)
    for metric, score in content.items():
        if not isinstance(score, dict) or score.keys() != names or not all(map(is_number, score.values())):
            raise damaged(path, f"'{metric}' needs the numbers {', '.join(Score.__dataclass_fields__)}")
    return {metric: Score(**score) for metric, score in content.items()}


def read_rows(folder: Path, needed: Sequence[str], wanted: Sequence[str] = ()) -> pa.Table:
    """Of the rows behind the scores the columns `needed`, and those of `wanted` that they have.

    Raises:
        InputError: they are missing or damaged, or have no such column.
    """
    return read_table(folder / ROWS, needed, wanted)


def rows_file(folder: Path) -> Path:
    """The file of the rows behind the scores, for a copy of it.

    Raises:
        InputError: it is missing or cut off.
    """
    columns_of(folder / ROWS)
    return folder / ROWS


def write_factual(folder: Path, facts: Mapping[str, Any]) -> None:
    io.put_json(folder / FACTUAL, facts)


def read_factual(folder: Path) -> dict[str, Any]:
    """The companions of a factual rate and what it depends on; nothing of other measurements.

    Raises:
        InputError: the file is damaged, or missing.
    """
    return read_object(folder / FACTUAL) if has_file(folder / FACTUAL) else {}


def write_details(folder: Path, details: Mapping[str, Any]) -> None:
    io.put_json(folder / DETAILS, details)


def read_details(folder: Path) -> dict[str, Any]:
    """What is known of a benchmark beside its scores; nothing of other measurements.

    Raises:
        InputError: the file is damaged, or missing.
    """
    return read_object(folder / DETAILS) if has_file(folder / DETAILS) else {}


def score_files(folder: Path) -> list[Path]:
    """The files that a measurement is made of, as far as it has them."""
    return [folder / name for name in (SCORES, ROWS, DETAILS, FACTUAL) if (folder / name).is_file()]
