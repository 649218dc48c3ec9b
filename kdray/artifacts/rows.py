"""Prepared rows: one Arrow file in source order, `rows.arrow`, memory-mapped, and in `split.json` which of them are
never trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kdray.artifacts.curated import read_chosen
from kdray.artifacts.files import read_object, reading

ROWS, SPLIT = "rows.arrow", "split.json"
SCHEMA = pa.schema(
    [
        ("source_row", pa.int64()),
        ("input_ids", pa.list_(pa.int32())),
        ("n_prompt", pa.int32()),
        ("instruction", pa.string()),  # the texts are null in rows made of a document
        ("context", pa.string()),
        ("response", pa.string()),
    ]
)


@contextmanager
def rows_writer(folder: Path) -> Iterator[pa.RecordBatchFileWriter]:
    """Takes tables of `SCHEMA`, one behind the other, as the rows in a folder."""
    with pa.OSFile(str(folder / ROWS), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        yield writer


def write_split(folder: Path, heldout: Sequence[int], test: Sequence[int]) -> None:
    """Keep the numbers of the rows that are never trained on."""
    (folder / SPLIT).write_text(json.dumps({"heldout": list(heldout), "test": list(test)}))


def rows_files(folder: Path) -> list[Path]:
    """The files that prepared rows are made of."""
    return [folder / ROWS, folder / SPLIT]


class Rows:
    """Random access to prepared rows without reading them all; `among`: the folder of a choice of those to train on,
    and which.

    Raises:
        InputError: one of the files is missing or damaged.
    """

    def __init__(self, folder: Path, among: tuple[Path, str] | None = None) -> None:
        self._among = among
        with reading(folder / ROWS):
            self.table = pa.ipc.open_file(pa.memory_map(str(folder / ROWS))).read_all()
            if self.table.schema != SCHEMA:
                raise ValueError("other columns than those of prepared rows")
        split = read_object(folder / SPLIT)
        with reading(folder / SPLIT):
            self.heldout, self.test = (self._side(split[side]) for side in ("heldout", "test"))

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def train(self) -> np.ndarray:
        """The rows on neither side of the split, in source order."""
        rows = np.delete(np.arange(len(self)), np.concatenate([self.heldout, self.test]))
        if self._among is None:
            return rows
        return rows[np.isin(self.table["source_row"].to_numpy()[rows], read_chosen(*self._among))]

    @cached_property
    def prompt_lengths(self) -> np.ndarray:
        """Prompt tokens of every row; 1 in rows without a prompt, whose first token nothing predicts."""
        return self.table["n_prompt"].to_numpy()

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of every row."""
        return np.asarray(pc.call_function("list_value_length", [self.table["input_ids"]]))

    @cached_property
    def response_lengths(self) -> np.ndarray:
        """Response tokens of every row, EOS included."""
        return self.lengths - self.prompt_lengths

    def input_ids(self, row: int) -> list[int]:
        return self.table["input_ids"][row].as_py()

    def text(self, row: int, column: str) -> str:
        return self.table[column][row].as_py()

    def _side(self, numbers: object) -> np.ndarray:
        """The rows of one side of the split, as numbers [n]."""
        if not isinstance(numbers, list) or not all(type(row) is int and 0 <= row < len(self) for row in numbers):
            raise ValueError(f"no numbers of {len(self)} rows")
        return np.array(numbers, dtype=np.int64)


class Answered(Rows):
    """Prepared rows, some of which have other responses, token ids by row, than the data's own."""

    def __init__(self, rows: Rows, responses: Mapping[int, Sequence[int]]) -> None:
        self.table, self.heldout, self.test, self._among = rows.table, rows.heldout, rows.test, rows._among
        self.responses = responses

    @cached_property
    def lengths(self) -> np.ndarray:
        lengths = super().lengths.copy()
        for row, response in self.responses.items():
            lengths[row] = self.prompt_lengths[row] + len(response)
        return lengths

    def input_ids(self, row: int) -> list[int]:
        own = super().input_ids(row)
        if row not in self.responses:
            return own
        return [*own[: int(self.prompt_lengths[row])], *self.responses[row]]
