"""Random access, and batches that count exactly the response tokens."""

from __future__ import annotations

import json

import pytest
import torch

from kdray.artifacts.rows import SPLIT, Rows
from kdray.data.collate import collate, pack
from kdray.score.prompts import grid_prompts
from tests.tiny import write_rows, write_tokenizer


def test_batches_predict_every_response_token_from_the_token_before_it(tmp_path):
    rows = Rows(write_rows(tmp_path, write_tokenizer(tmp_path)))
    chosen = [5, 0, 9]
    batch = collate(rows, chosen)
    at = 0
    for i, row in enumerate(chosen):
        ids, begin = rows.input_ids(row), int(rows.prompt_lengths[row])
        assert batch.input_ids[i, : len(ids)].tolist() == ids
        assert batch.attention_mask[i].tolist() == [1] * len(ids) + [0] * (batch.input_ids.shape[1] - len(ids))
        count = len(ids) - begin
        assert batch.labels[at : at + count].tolist() == ids[begin:]
        assert batch.positions[at : at + count].tolist() == [[i, t - 1] for t in range(begin, len(ids))]
        at += count
    assert at == len(batch.labels) == int(rows.response_lengths[chosen].sum())


def test_a_packed_batch_is_the_padded_one_without_its_padding(tmp_path):
    rows = Rows(write_rows(tmp_path, write_tokenizer(tmp_path)))
    padded, packed = collate(rows, [5, 0, 9]), pack(rows, [5, 0, 9])
    real = padded.attention_mask.bool()
    assert torch.equal(packed.input_ids[0], padded.input_ids[real])
    assert torch.equal(packed.position_ids[0], real.nonzero()[:, 1])
    assert torch.equal(packed.labels, padded.labels)  # so soft labels, which come row by row, fit both
    columns = torch.zeros_like(real, dtype=torch.long)
    columns[real] = torch.arange(int(real.sum()))
    assert packed.positions[:, 0].eq(0).all()
    assert torch.equal(packed.positions[:, 1], columns[padded.positions[:, 0], padded.positions[:, 1]])
    assert padded.position_ids is None
    assert packed.to("meta").position_ids.is_meta


@pytest.mark.parametrize("make", [collate, pack])
def test_no_rows_give_one_sequence_that_counts_nothing(tmp_path, make):
    batch = make(Rows(write_rows(tmp_path, write_tokenizer(tmp_path))), [])
    assert batch.input_ids.shape == (1, 1)
    assert batch.labels.shape == (0,)
    assert batch.positions.shape == (0, 2)
    assert batch.positions.dtype == torch.long


def test_what_is_neither_held_out_nor_test_is_for_training(tmp_path):
    folder = write_rows(tmp_path, write_tokenizer(tmp_path), count=9)
    (folder / SPLIT).write_text(json.dumps({"heldout": [0, 4], "test": [8]}))
    rows = Rows(folder)
    assert rows.train.tolist() == [1, 2, 3, 5, 6, 7]
    assert [prompt.example for prompt in grid_prompts("heldout_answers", rows, "unseen", None, None)] == [8]
    (folder / SPLIT).write_text(json.dumps({"heldout": [0, 4], "test": []}))
    assert [prompt.example for prompt in grid_prompts("heldout_answers", Rows(folder), "unseen", None, None)] == [0, 4]
