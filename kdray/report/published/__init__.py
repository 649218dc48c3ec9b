"""Published numbers that results here are held against: a table a file, each row with the place that it is from."""

from __future__ import annotations

import csv
from pathlib import Path

from kdray.spec.sections.base import Labels

FOLDER = Path(__file__).parent
PAPER: dict[
    str, tuple[str, Labels]
] = {  # by student: its family in the paper's tables 1 and 2, and the labels of the runs with alpha > 0
    "meta-llama/Llama-2-7b-chat-hf": ("Llama-2-7B", "teacher"),
    "meta-llama/Llama-3.1-8B-Instruct": ("Llama3.1-8B", "gold"),
    "Qwen/Qwen2.5-7B-Instruct": ("Qwen2.5-7B", "gold"),
}


def published(name: str) -> list[dict[str, str | float]]:
    """The rows of the table `name`, in the order in which they were published, numbers as such.

    Raises:
        KeyError: there is no such table.
    """
    path = FOLDER / f"{name}.csv"
    if not path.is_file():
        raise KeyError(
            f"no published table '{name}': there are {', '.join(sorted(file.stem for file in FOLDER.glob('*.csv')))}"
        )
    with path.open(encoding="utf-8", newline="") as file:
        return [{column: _number(cell) for column, cell in row.items()} for row in csv.DictReader(file, strict=True)]


def _number(cell: str) -> str | float:
    try:
        return float(cell)
    except ValueError:
        return cell
