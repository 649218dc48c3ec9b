"""Prompts on disk for the length of a run: written once for all models that are asked the same, read row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from kdray.artifacts.answers import ASKED
from kdray.score.prompts import Prompt

# refused: null where a model is asked
SCHEMA = pa.schema([*ASKED, ("refused", pa.string()), ("cut", pa.bool_()), ("id", pa.string())])


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """Write the prompts into one Arrow file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([vars(prompt) for prompt in prompts], schema=SCHEMA)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        writer.write_table(table)


def read_prompts(path: Path, rows: Sequence[int]) -> list[Prompt]:
    """The prompts in these rows of a file."""
    with pa.memory_map(str(path)) as file:
        return [Prompt(**row) for row in pa.ipc.open_file(file).read_all().take(list(rows)).to_pylist()]
