"""The prepared rows: one Arrow file in source order, memory-mapped, and which of its rows are never trained on."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

FILE, SPLIT = "rows.arrow", "split.json"
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


class Rows:
    """Random access to prepared rows without reading them all."""

    def __init__(self, folder: Path) -> None:
        self.table = pa.ipc.open_file(pa.memory_map(str(folder / FILE))).read_all()
        split = json.loads((folder / SPLIT).read_text())
        self.heldout = np.array(split["heldout"], dtype=np.int64)
        self.test = np.array(split["test"], dtype=np.int64)

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def train(self) -> np.ndarray:
        """The rows on neither side of the split, in source order."""
        return np.delete(np.arange(len(self)), np.concatenate([self.heldout, self.test]))

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
