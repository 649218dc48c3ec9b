"""The prepared rows: one Arrow file in source order, memory-mapped, and which of its rows are held out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

FILE, SPLIT = "rows.arrow", "split.json"
SPLIT_SEED = 20250  # one fixed order for every grid: prepared rows never depend on a point's seed
SCHEMA = pa.schema(
    [
        ("source_row", pa.int64()),
        ("input_ids", pa.list_(pa.int32())),
        ("n_prompt", pa.int32()),
        ("instruction", pa.string()),
        ("context", pa.string()),
        ("response", pa.string()),
    ]
)


class Rows:
    """Random access to prepared rows without reading them all."""

    def __init__(self, folder: Path) -> None:
        self.table = pa.ipc.open_file(pa.memory_map(str(folder / FILE))).read_all()
        split = json.loads((folder / SPLIT).read_text())
        self.train = np.array(split["train"], dtype=np.int64)
        self.heldout = np.array(split["heldout"], dtype=np.int64)
        self.prompt_lengths = self.table["n_prompt"].to_numpy()
        self.lengths = np.asarray(pc.call_function("list_value_length", [self.table["input_ids"]]))

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def response_lengths(self) -> np.ndarray:
        """Response tokens of every row, EOS included."""
        return self.lengths - self.prompt_lengths

    def input_ids(self, row: int) -> list[int]:
        return self.table["input_ids"][row].as_py()

    def text(self, row: int, column: str) -> str:
        return self.table[column][row].as_py()


def split_rows(count: int, heldout: int) -> dict[str, Any]:
    """Which of `count` rows are held out: a fixed random choice, each side in a fixed order."""
    order = np.random.Generator(np.random.PCG64(SPLIT_SEED)).permutation(count)
    return {"heldout": sorted(order[:heldout].tolist()), "train": sorted(order[heldout:].tolist())}
