"""Rows with tokens that a model has no embedding of, and rows without a prompt, are named in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from transformers import PreTrainedTokenizerFast

from kdray.artifacts.rows import Rows, rows_writer
from kdray.data.known import require_known
from kdray.spec.errors import InputError
from tests.tiny import write_rows, write_tokenizer


@pytest.fixture
def tokenizer(tmp_path: Path) -> PreTrainedTokenizerFast:
    return write_tokenizer(tmp_path / "tokenizer")


@pytest.fixture
def folder(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    return write_rows(tmp_path / "rows", tokenizer, count=12)


def change(folder: Path, changes: dict[int, dict[str, Any]], per_batch: int = 5) -> Rows:
    """The rows with some changed, in several record batches as `prepare` writes them."""
    table = Rows(folder).table
    records = [record | changes.get(i, {}) for i, record in enumerate(table.to_pylist())]
    with rows_writer(folder) as writer:
        for i in range(0, len(records), per_batch):
            writer.write_table(pa.Table.from_pylist(records[i : i + per_batch], schema=table.schema))
    return Rows(folder)


def largest(rows: Rows) -> int:
    return max(max(rows.input_ids(row)) for row in range(len(rows)))


def test_rows_whose_last_token_is_just_known_pass(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = change(folder, {})
    require_known(rows, {"student.model": largest(rows) + 1, "teacher.model": 10_000}, tokenizer)
    with pytest.raises(InputError, match=rf"^teacher\.model: its embedding has {largest(rows)} tokens, and row"):
        require_known(rows, {"student.model": 10_000, "teacher.model": largest(rows)}, tokenizer)


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ({7: [5, 9, 331]}, "row 8 token 331"),
        ({0: [331, 5, 9], 11: [5, 5, 400]}, "rows 1, 12 token 331"),
        ({i: [5, 5, 341 - i] for i in range(4, 11)}, "rows 5, 6, 7 and 4 more token 337"),
    ],
)
def test_rows_are_named_wherever_the_token_is(
    where: dict[int, list[int]], named: str, folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    tokenizer.add_tokens([f"<{i}>" for i in range(len(tokenizer), 401)])
    rows = change(folder, {row: {"input_ids": ids, "n_prompt": 1} for row, ids in where.items()})
    with pytest.raises(InputError) as caught:
        require_known(rows, {"student.model": 331}, tokenizer)
    assert str(caught.value) == (
        f"student.model: its embedding has 331 tokens, and {named} ('<{named.split()[-1]}>'); "
        "give a model with an embedding of every token, or leave these rows out"
    )


def test_a_row_without_a_prompt_is_named_as_its_source_counts(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = change(folder, {3: {"n_prompt": 0, "source_row": 40}})
    with pytest.raises(InputError, match=r"^data\.template: the prompt of row 41 has no token; use a template"):
        require_known(rows, {}, tokenizer)
