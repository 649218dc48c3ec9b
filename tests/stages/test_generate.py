"""Kept answers that are damaged; prompts that fit the window of their model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.spec.errors import InputError
from kdray.stages.generate import SCHEMA, _asked, _batches, read_answers
from kdray.store import Outer, Store
from tests.conftest import TinyGrid
from tests.tiny import write_tokenizer

ROW: dict[str, Any] = {name: [] if pa.types.is_list(SCHEMA.field(name).type) else "x" for name in SCHEMA.names} | {"example": 0}


def written(path: Path, row: dict[str, Any]) -> None:
    pq.write_table(pa.Table.from_pylist([row]), path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: written(path, {"a": 1}),
        lambda path: written(path, ROW | {"example": "x"}),
        lambda path: written(path, ROW | {"example": None}),
        lambda path: path.rename(path.with_name("part-x.parquet")),
    ],
)
def test_damaged_answers_are_said_with_their_folder(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    path = tmp_path / "part-00000-x.parquet"
    written(path, ROW)
    assert read_answers(tmp_path) == [ROW]
    damage(path)
    with pytest.raises(InputError, match=rf"^answers: {tmp_path} is damaged \(.+\); generate them again$"):
        read_answers(tmp_path)


@pytest.mark.parametrize("config", [{"model_type": "gpt2", "n_positions": 300}, {"model_type": "mpt", "max_seq_len": 300}])
def test_a_text_is_cut_to_the_window_under_whatever_name_it_is_said(config: dict[str, Any], tiny_grid: TinyGrid) -> None:
    tiny_grid.rows("xsum.jsonl", [{"document": "It rained in Rome . " * 40, "summary": "Rain."}])
    write_tokenizer(tiny_grid.folder / "student")
    grid = load_grid(tiny_grid({"score.tasks": [{"name": "xsum", "source": "file:HERE/xsum.jsonl", "max_new_tokens": 20}]}))
    outer = Outer(Store(grid.runtime.store).root)
    step = next(step for step in make_plan(grid, outer).steps() if step.kind == "generate")
    work = cast(Any, SimpleNamespace(folder=lambda _: tiny_grid.folder / "student", outer=outer))
    [[whole]] = _batches(step, work)
    (tiny_grid.folder / "student" / "config.json").write_text(json.dumps(config))
    [[cut]] = _batches(step, work)
    assert len(whole.input_ids) > 600
    assert 270 < len(cut.input_ids) <= 280
    assert whole.source.startswith(cut.source)


def test_a_prompt_with_a_token_that_the_model_has_no_embedding_of_is_named(tiny_grid: TinyGrid) -> None:
    """Of two models with one tokenizer, the one that knows it is asked."""
    rows = [{"document": text, "summary": "Rain."} for text in ("It rained .", "It rained <more> .", "<more>")]
    tiny_grid.rows("xsum.jsonl", rows)
    student = tiny_grid.folder / "student"
    tokenizer = write_tokenizer(student)
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(student)
    grid = load_grid(tiny_grid({"score.tasks": [{"name": "xsum", "source": "file:HERE/xsum.jsonl"}]}))
    outer = Outer(Store(grid.runtime.store).root)
    step = next(step for step in make_plan(grid, outer).steps() if step.kind == "generate")
    work, asked = cast(Any, SimpleNamespace(folder=lambda _: student, outer=outer)), set()
    for known in (len(tokenizer), len(tokenizer) - 1):
        (student / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": known}))
        asked.add(_asked(step, work))
        if known == len(tokenizer):
            assert len(_batches(step, work)[0]) == 3
            continue
        with pytest.raises(InputError) as caught:
            _batches(step, work)
        found = f"score.tasks.xsum: its embedding has {known} tokens, and rows 2, 3 token {known} ('<more>')"
        assert str(caught.value).startswith(found)
    assert len(asked) == 2
