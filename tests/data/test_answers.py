"""Rows with a teacher's answers: which tokens they hold, what is left out, and where the held-out rows are."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from kdray.artifacts.rows import SCHEMA, Rows, rows_writer, write_split
from kdray.data.answers import write_answered, write_both
from kdray.models.load import load_tokenizer, token_count
from tests.tiny import write_rows, write_tokenizer

LIMITS = {"max_new_tokens": 6, "max_length": 256}


@pytest.fixture
def tokenizer(tmp_path):
    return write_tokenizer(tmp_path / "tokenizer")


@pytest.fixture
def rows(tmp_path, tokenizer):
    return Rows(write_rows(tmp_path / "gold", tokenizer, count=12, heldout=4))


def answered(rows, answers, tokenizer, folder, **limits):
    folder.mkdir()
    counts = write_answered(rows, answers, tokenizer, folder, **(LIMITS | limits))
    return Rows(folder), counts


def prompt(rows, row):
    return rows.input_ids(row)[: int(rows.prompt_lengths[row])]


def test_training_rows_carry_the_answer_and_eos_and_heldout_rows_their_own_response(rows, tokenizer, tmp_path):
    answers = [[20 + i, 30] for i in range(8)]
    made, counts = answered(rows, answers, tokenizer, tmp_path / "made")
    assert counts == {"read": 8, "kept": 8, "empty": 0, "unknown": 0, "truncated": 0}
    assert (made.train.tolist(), made.heldout.tolist()) == (rows.train.tolist(), rows.heldout.tolist())
    for row, answer in zip(rows.train.tolist(), answers, strict=True):
        assert made.input_ids(row) == [*prompt(rows, row), *answer, tokenizer.eos_token_id]
        assert made.text(row, "response") == tokenizer.decode(answer).strip()
        assert made.text(row, "context") == rows.text(row, "context")
    for row in rows.heldout.tolist():
        assert made.table.slice(row, 1) == rows.table.slice(row, 1)


def test_nothing_of_a_training_response_is_left(rows, tokenizer, tmp_path):
    """The same prompts with other responses give the same training rows."""
    train = set(rows.train.tolist())
    records = rows.table.to_pylist()
    for row, record in enumerate(records):
        if row in train:
            record |= {"input_ids": [*record["input_ids"][: record["n_prompt"]], 9, 9], "response": "another one"}
    other = tmp_path / "other"
    other.mkdir()
    with rows_writer(other) as writer:
        writer.write_table(pa.Table.from_pylist(records, schema=SCHEMA))
    write_split(other, rows.heldout.tolist(), rows.test.tolist())
    answers = [[20 + i] for i in range(8)]
    made = [
        answered(source, answers, tokenizer, tmp_path / name)[0] for source, name in ((rows, "a"), (Rows(other), "b"))
    ]
    assert made[0].table == made[1].table


def test_a_vocabulary_may_skip_ids(rows, tmp_path):
    """As one that was pruned: its last tokens have ids beyond their number."""
    path = tmp_path / "tokenizer" / "tokenizer.json"
    described = json.loads(path.read_text())
    vocabulary = described["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.__getitem__)
    vocabulary[last] += 7
    path.write_text(json.dumps(described))
    tokenizer, id = load_tokenizer(tmp_path / "tokenizer"), vocabulary[last]
    assert len(tokenizer) <= id < token_count(tokenizer)
    made, counts = answered(rows, [[id], *([20] for _ in range(6)), [id + 1]], tokenizer, tmp_path / "made")
    assert (counts["kept"], counts["unknown"]) == (7, 1)
    assert made.input_ids(made.train[0])[-2:] == [id, tokenizer.eos_token_id]


def test_an_answer_that_was_stopped_has_no_eos(rows, tokenizer, tmp_path):
    answers = [[20] * 6, [20] * 5, *([20] for _ in range(6))]
    made, counts = answered(rows, answers, tokenizer, tmp_path / "made")
    first, second = rows.train[:2].tolist()
    assert made.input_ids(first) == [*prompt(rows, first), *answers[0]]
    assert made.input_ids(second) == [*prompt(rows, second), *answers[1], tokenizer.eos_token_id]
    assert counts["truncated"] == 1


def test_the_whole_is_cut_at_max_length(rows, tokenizer, tmp_path):
    row = max(rows.train.tolist(), key=lambda row: rows.prompt_lengths[row])
    longest = int(rows.prompt_lengths[row])
    made, counts = answered(
        rows, [[20, 21, 22] for _ in range(8)], tokenizer, tmp_path / "made", max_length=longest + 3
    )
    assert made.input_ids(row) == [*prompt(rows, row), 20, 21, 22]  # EOS would be the fourth
    assert counts["truncated"] == sum(int(rows.prompt_lengths[row]) == longest for row in rows.train)


def test_a_row_without_anything_to_learn_is_dropped_and_the_others_are_numbered_anew(rows, tokenizer, tmp_path):
    space = tokenizer.encode(" ")
    answers = [[], [20], space, [len(tokenizer)], [len(tokenizer) - 1], [tokenizer.eos_token_id], [21], [22]]
    made, counts = answered(rows, answers, tokenizer, tmp_path / "made")
    assert counts == {"read": 8, "kept": 4, "empty": 3, "unknown": 1, "truncated": 0}
    kept = [rows.train.tolist()[i] for i in (1, 4, 6, 7)]
    assert len(made) == len(made.train) + len(made.heldout) == 8
    assert sorted([*made.train.tolist(), *made.heldout.tolist()]) == list(range(8))
    assert [prompt(made, row) for row in made.train.tolist()] == [prompt(rows, row) for row in kept]
    assert [made.input_ids(row) for row in made.heldout.tolist()] == [
        rows.input_ids(row) for row in rows.heldout.tolist()
    ]


def test_many_chunks_are_one_table(rows, tokenizer, tmp_path, monkeypatch):
    whole, _ = answered(rows, [[20 + i] for i in range(8)], tokenizer, tmp_path / "whole")
    monkeypatch.setattr("kdray.data.answers.CHUNK", 5)
    assert answered(rows, [[20 + i] for i in range(8)], tokenizer, tmp_path / "chunks")[0].table == whole.table


def test_both_are_the_gold_rows_followed_by_the_answered_ones(rows, tokenizer, tmp_path):
    made, _ = answered(rows, [[], *([20 + i] for i in range(7))], tokenizer, tmp_path / "made")
    (tmp_path / "both").mkdir()
    write_both(rows, made, tmp_path / "both")
    both = Rows(tmp_path / "both")
    assert both.table.slice(0, len(rows)) == rows.table
    assert both.heldout.tolist() == rows.heldout.tolist()
    assert both.train.tolist() == [*rows.train.tolist(), *range(12, 19)]
    assert [both.input_ids(row) for row in range(12, 19)] == [made.input_ids(row) for row in made.train.tolist()]


def test_what_the_teacher_thought_is_not_learned(rows, tokenizer, tmp_path):
    ids = lambda text: tokenizer(text)["input_ids"]  # noqa: E731
    said = ["<think>\nBen ?\n</think>\n\nAda", "<think>Ben ?", "<think>Ben ?</think>\n", "Ada <think>"]
    said += ["<think>Ben</think><answer>Ada</answer>", *(["Ada"] * 3)]
    made, counts = answered(
        rows, [ids(text) for text in said], tokenizer, tmp_path / "made", max_new_tokens=len(ids(said[0]))
    )
    assert counts == {"read": 8, "kept": 6, "empty": 1, "unknown": 0, "truncated": 2, "thoughts": 4, "unfinished": 1}
    first = int(made.train[0])
    assert made.input_ids(first) == [
        *prompt(rows, int(rows.train[0])),
        *ids("Ada"),
    ]  # of all that it wrote it had reached the end
    assert [made.text(row, "response") for row in made.train.tolist()] == ["Ada", "Ada <think>", *(["Ada"] * 4)]


def test_an_answer_with_tokens_that_the_student_has_no_embedding_of_drops_its_row(rows, tokenizer, tmp_path):
    answers = [[20, 90], *([20, 30] for _ in range(7))]
    _, counts = answered(rows, answers, tokenizer, tmp_path / "made", known=90)
    assert (counts["unknown"], counts["kept"]) == (1, 7)
    _, counts = answered(rows, answers, tokenizer, tmp_path / "again", known=91)
    assert (counts["unknown"], counts["kept"]) == (0, 8)
