"""What every item of a score got: the rows behind it, and the same item of two models side by side."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdray.artifacts.answers import examples_in
from kdray.artifacts.scores import Score, read_rows, read_scores

KEPT_AS = {"fr": "factual"}  # scores whose items have another name in the file of rows
SCALES = (1.0, 100.0)  # of a table's numbers to the items': accuracies are 0 or 1 there, and percent in tables
EXACT = 1e-6  # of a score's size, by which it may differ from its items' mean


def items_of(folder: Path) -> Iterator[tuple[str, str, float | None]]:
    """(metric, item, value) of all rows behind the scores in a folder; None where the metric failed on the item.

    What no item has as a number is left out, such as a calibration error.

    Raises:
        InputError: a file is damaged.
    """
    columns = {metric: KEPT_AS.get(metric, metric) for metric in read_scores(folder)}
    table = read_rows(folder, ["example"], ["task", *columns.values()])
    kinds = {field.name: field.type for field in table.schema}
    columns = {
        metric: name for metric, name in columns.items() if name in kinds and not pa.types.is_boolean(kinds[name])
    }
    rows = table.to_pydict()
    several = len(set(rows.get("task", ()))) > 1
    items = [f"{rows['task'][i]}/{example}" if several else str(example) for i, example in enumerate(rows["example"])]
    for metric, name in columns.items():
        for item, value in zip(items, rows[name], strict=True):
            yield metric, item, value


@functools.lru_cache(maxsize=4096)
def _values(folder: Path) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for metric, item, value in items_of(folder):
        found.setdefault(metric, {})[item] = value
    return found


def values_of(folder: Path, metric: str, score: Score) -> dict[str, float | None] | None:
    """By item in the tables' unit; None where the score is no mean over items, as an error of calibration is not.

    Raises:
        InputError: a file is damaged.
    """
    values = _values(folder).get(metric, {})
    known = [value for value in values.values() if value is not None]
    if not known:
        return None
    mean = statistics.fmean(known)
    for scale in SCALES:
        if abs(scale * mean - score.value) <= EXACT * max(1.0, abs(score.value)):
            return {item: None if value is None else scale * value for item, value in values.items()}
    return None


@functools.lru_cache(maxsize=1024)
def without_values(answers: Path) -> dict[str, None]:
    """By item no value, of all items that the answers in a folder are to: a factual rate has no row of those answers
    that it cannot be taken of.

    Raises:
        InputError: a file is damaged.
    """
    return dict.fromkeys(map(str, examples_in(answers)))


def side_by_side(runs: Sequence[dict[str, float | None]]) -> tuple[NDArray[np.float64], list[str], int] | str:
    """[runs, items] of the items that all runs have a value of, these items, and how many others there are.

    Where runs were not asked the same the answer says so instead: nothing can be compared item by item.
    """
    every, common = set().union(*runs), set(runs[0]).intersection(*runs[1:])
    if every != common:
        return f"{len(every - common)} of {len(every)} items are not in all runs: the task's data differ between them"
    items = sorted(item for item in common if all(run[item] is not None for run in runs))
    values = np.array([[run[item] for item in items] for run in runs], dtype=np.float64)
    return values, items, len(every) - len(items)
