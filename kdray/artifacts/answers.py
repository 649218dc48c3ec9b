"""Answers, what `generate` leaves: a part a batch of prompts, `part-00012-<checksum>.parquet`, one row an answer.

Where a task reads ids of its rows, answers have them in a column `id`; those by a decoding that cites have what it
cites in a column `cited`. In the metadata of a part's table are the `seconds` that its answers took.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from kdray.artifacts.files import reading
from kdray.artifacts.parts import all_parts
from kdray.artifacts.tables import columns_of, read_like, read_table, write_table_part

# what a model was asked
ASKED = (
    ("example", pa.int64()),
    ("input_ids", pa.list_(pa.int32())),
    ("question", pa.string()),
    ("source", pa.string()),
    ("references", pa.list_(pa.string())),
    ("wrong", pa.list_(pa.string())),
)
SCHEMA = pa.schema(
    [
        *ASKED,
        ("output_ids", pa.list_(pa.int32())),
        ("answer", pa.string()),
        ("error", pa.string()),  # null where there is an answer
        ("thought_ids", pa.list_(pa.int32())),  # what stood before `output_ids`, marks included
        ("thought", pa.string()),  # null where there is none
        ("thought_end", pa.string()),  # the mark that closed the thought; null where nothing did: nothing was answered
    ]
)
# which answers have not that were kept together with their thoughts
THOUGHTS = ("thought_ids", "thought", "thought_end")
# only where there are some
ID = pa.field("id", pa.string())
CITED = pa.field(
    "cited",
    pa.struct(
        [
            ("cut", pa.int32()),  # sentences at the document's end that could not be cited
            (
                "statements",
                pa.list_(
                    pa.struct(
                        [
                            ("text", pa.string()),
                            ("tokens", pa.int32()),
                            ("plain", pa.string()),  # the model's own citation, as it is written between the tags
                            ("plain_reward", pa.float64()),  # nats
                            ("best", pa.string()),  # the best of its candidates
                            ("best_reward", pa.float64()),
                            ("sound", pa.float64()),  # the share of candidates that can be read as a whole
                        ]
                    )
                ),
            ),
        ]
    ),
)
NULLABLE = ("error", "thought", "thought_end", "cited")
SECONDS = b"seconds"
SHOWN = ("example", "source", "references", "thought", "answer")
Row = dict[str, Any]


def write_answers(folder: Path, index: int, rows: Sequence[Mapping[str, Any]], seconds: float) -> None:
    """Keep the answers to one batch of prompts, which took so many seconds."""
    schema = _with([field for field in (ID, CITED) if any(row.get(field.name) for row in rows)])
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema.with_metadata({SECONDS: f"{seconds:.3f}"}))
    write_table_part(folder, index, table)


def read_answers(folder: Path, tell_apart: Callable[[Row], Row] | None = None) -> list[Row]:
    """All answers in the order of the examples, with the columns of `SCHEMA`, ids and citations where there are some.

    `tell_apart` makes such a row of one that was kept together with its thought, before thoughts were told apart while
    answers were made; without it there is no thought.

    Raises:
        InputError: a part is damaged, missing, or holds something else.
    """
    rows: list[Row] = []
    for path in all_parts(folder):
        schema = _schema_of(path)
        found = read_like(path, schema, NULLABLE).to_pylist()
        rows += found if set(THOUGHTS) <= set(schema.names) else map(tell_apart or _without_thought, found)
    return sorted(rows, key=lambda row: row["example"])


def examples_in(folder: Path) -> list[int]:
    """The examples that a model was asked, whatever came of it, part by part.

    Raises:
        InputError: a part is damaged or missing.
    """
    return [example for path in all_parts(folder) for example in read_table(path, ["example"])["example"].to_pylist()]


def answers_to_show(folder: Path, count: int) -> list[Row]:
    """What a person reads of the first `count` in the last two parts, which have the shortest prompts.

    Raises:
        InputError: a part is damaged or missing.
    """
    rows: list[Row] = []
    for path in all_parts(folder)[-2:]:
        schema = _schema_of(path)
        rows += read_like(
            path, pa.schema([schema.field(name) for name in SHOWN if name in schema.names]), NULLABLE
        ).to_pylist()
    return rows[:count]


def measured_cost(folder: Path) -> dict[str, float]:
    """What a `generate` attempt notes: the tokens of all its answers, and the seconds that their batches took (if
    known).
    """
    tokens, seconds = 0, 0.0
    for path in all_parts(folder):
        table = read_table(path, ["output_ids"], ["thought_ids"])
        noted = table.schema.metadata or {}
        if SECONDS not in noted:  # a part of an earlier version
            return {}
        tokens += sum(len(ids) for column in table.columns for ids in column.to_pylist())
        with reading(path):
            seconds += float(noted[SECONDS])
    return {"answer_tokens": tokens, "answer_seconds": round(seconds, 3)}


def _schema_of(path: Path) -> pa.Schema:
    """`SCHEMA`, or that of answers which were kept together with their thoughts."""
    there = set(columns_of(path))
    if not set(THOUGHTS) & there:
        return pa.schema([field for field in SCHEMA if field.name not in THOUGHTS])
    return _with([field for field in (ID, CITED) if field.name in there])


def _with(more: Sequence[pa.Field]) -> pa.Schema:
    return functools.reduce(pa.Schema.append, more, SCHEMA)


def _without_thought(row: Row) -> Row:
    return row | {"thought_ids": [], "thought": None, "thought_end": None}
