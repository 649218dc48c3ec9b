"""Published numbers that results here are held against: a table a file, each row with the place that it is from."""

from __future__ import annotations

import csv
from pathlib import Path

FOLDER = Path(__file__).parent


def published(name: str) -> list[dict[str, str | float]]:
    """The rows of the table `name`, in the order in which they were published, numbers as such.

    Raises:
        KeyError: there is no such table.
    """
    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        raise KeyError(f"no published table '{name}': there are {', '.join(sorted(file.stem for file in FOLDER.glob('*.csv')))}")
    with path.open(encoding="utf-8", newline="") as file:
        return [{column: _number(cell) for column, cell in row.items()} for row in csv.DictReader(file, strict=True)]


def _number(cell: str) -> str | float:
    try:
        return float(cell)
    except ValueError:
        return cell
