"""A teacher with another tokenizer, in whole grids on tiny models."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from kdray.artifacts.aligned import Aligned
from kdray.artifacts.curve import read_curve
from kdray.artifacts.rows import SCHEMA, Rows, rows_writer, write_split
from kdray.artifacts.scores import read_scores
from kdray.data.pieces import token_bytes
from kdray.models.load import load_tokenizer
from kdray.plan.inputs import RetokeniseInputs
from kdray.spec import InputError, load_grid
from kdray.stages.retokenise import retokenise_slice
from tests.here import run_here
from tests.tiny import write_grid, write_model, write_rows, write_tokenizer

EXTRA = "Cairo Delhi livestock lives inside . " * 40  # of which the teacher's tokenizer makes tokens of its own
PARAMS = {"name": "chat", "version": 1, "params": {}}


def write(folder: Path, **overrides: str) -> Path:
    sections = {
        "train": "{steps: 3}",
        "axes": "{lr: [3.0e-3], batch: [4], alpha: [0, 1]}",
        "score": "{tasks: [heldout_loss], references: [], batch: 3}",
        "soft_labels": "{form: hidden, dtype: float32, align: text}",
    }
    path = write_grid(folder, **(sections | overrides))
    write_model(folder / "teacher", layers=3, seed=1, extra=EXTRA)
    return path


def test_rows_are_the_same_text_in_other_tokens(tmp_path: Path) -> None:
    ours, theirs = write_tokenizer(tmp_path / "ours"), write_tokenizer(tmp_path / "theirs", EXTRA)
    (tmp_path / "theirs" / "config.json").write_text('{"max_position_embeddings": 512}')
    (tmp_path / "ours" / "config.json").write_text("{}")
    rows = write_rows(tmp_path / "rows", ours)
    numbers = list(range(len(Rows(rows))))
    table = retokenise_slice(str(rows), str(tmp_path / "ours"), str(tmp_path / "theirs"), PARAMS, {"id": numbers})
    [answer] = table.to_pylist()
    found = pa.ipc.open_stream(answer["rows"]).read_all().to_pylist()
    kept = Rows(rows)
    assert [row["source_row"] for row in found] == kept.table["source_row"].to_pylist()
    for number, row in enumerate(found):
        text = kept.text(number, "response")
        assert theirs.decode(row["input_ids"][row["n_prompt"] :]) == text + theirs.eos_token
        prompt = ours.decode(kept.input_ids(number)[: kept.prompt_lengths[number]])
        assert theirs.decode(row["input_ids"][: row["n_prompt"]]) == prompt
    assert answer["error"] == ""
    assert 0 < answer["text"] < answer["position"] <= answer["learned"]


def test_a_response_that_is_cut_is_cut_at_the_same_text(tmp_path: Path) -> None:
    ours = write_tokenizer(tmp_path / "ours")
    theirs = write_tokenizer(tmp_path / "theirs", EXTRA)
    for name in ("ours", "theirs"):
        (tmp_path / name / "config.json").write_text("{}")
    rows = Rows(write_rows(tmp_path / "rows", ours))
    short = [ids[:-3] for ids in rows.table["input_ids"].to_pylist()]
    column = SCHEMA.field("input_ids")
    cut = rows.table.set_column(1, column, pa.array(short, column.type))
    (tmp_path / "cut").mkdir()
    with rows_writer(tmp_path / "cut") as writer:
        writer.write_table(cut)
    write_split(tmp_path / "cut", [], [])
    table = retokenise_slice(
        str(tmp_path / "cut"), str(tmp_path / "ours"), str(tmp_path / "theirs"), PARAMS, {"id": [0, 1]}
    )
    for number, row in enumerate(pa.ipc.open_stream(table["rows"][0].as_py()).read_all().to_pylist()):
        response = short[number][rows.prompt_lengths[number] :]
        assert theirs.decode(row["input_ids"][row["n_prompt"] :]) == ours.decode(response)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.usefixtures("one_ray")
def test_a_grid_learns_from_it_by_text(tmp_path: Path) -> None:
    plan, store, failed = run_here(write(tmp_path))
    assert failed == {}
    [step] = [step for step in plan.steps() if isinstance(step.inputs, RetokeniseInputs)]
    theirs, aligned = Rows(store.get(step.key).path), Aligned(store.get(step.key).path)
    ours = Rows(store.get(plan.prepare.key).path)
    assert theirs.heldout.tolist() == ours.heldout.tolist()
    writes = [token_bytes(load_tokenizer(tmp_path / name)) for name in ("student", "teacher")]
    for row in range(len(ours)):  # what is aligned begins behind the same text, and one of the two with the other
        responses = [some.input_ids(row)[int(some.prompt_lengths[row]) :] for some in (ours, theirs)]
        texts = [[pieces[id] or b"" for id in ids] for pieces, ids in zip(writes, responses, strict=True)]
        for i, j in aligned.pairs(row).T.tolist():
            assert b"".join(texts[0][:i]) == b"".join(texts[1][:j])
            assert texts[1][j].startswith(texts[0][i])
    kept = curve_of(plan, store)
    assert kept[0]["soft"] > 0
    assert "heldout_kl" not in kept[-1]
    scores = [read_scores(store.get(score.measure.key).path) for score in plan.scores]
    assert all("kl" not in found for found in scores)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.usefixtures("one_ray")
def test_a_teacher_beside_the_student_teaches_the_same_and_its_answers_are_learned(tmp_path: Path) -> None:
    losses = []
    for form in ("hidden, dtype: float32", "online"):
        plan, store, failed = run_here(write(tmp_path, soft_labels=f"{{form: {form}, align: text}}"))
        assert failed == {}
        losses.append(curve_of(plan, store)[-1]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)

    by_position = write(
        tmp_path,
        soft_labels="{form: hidden, dtype: float32, align: position}",
        objective="{loss: uld}",
        augment="{max_new_tokens: 8}",
        axes="{lr: [3.0e-3], batch: [4], alpha: [1], labels: [gold, teacher]}",
    )
    plan, store, failed = run_here(by_position)
    assert failed == {}
    gold, taught = (read_curve(store.get(point.train.key)) for point in plan.points)
    assert 0 < gold[0]["soft"] < 2
    assert 0 < taught[0]["soft"] < 2
    answered = Rows(store.get(plan.points[1].train.inputs.data.key).path)
    tokenizer = load_tokenizer(tmp_path / "student")
    for row in answered.train.tolist():  # in the student's tokens, behind its own prompt
        ids, n = answered.input_ids(row), int(answered.prompt_lengths[row])
        assert answered.text(row, "response") in tokenizer.decode(ids[n:])
        assert answered.text(row, "instruction") in tokenizer.decode(ids[:n])


def curve_of(plan, store) -> list[dict[str, float]]:
    [point] = [point for point in plan.points if point.point.alpha]
    return read_curve(store.get(point.train.key))


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"objective": "{loss: uld}", "soft_labels": "{}"}, "objective.loss: 'uld' without soft_labels.align"),
        ({"soft_labels": "{align: position}"}, "soft_labels.align: position with objective.loss 'cross_entropy'"),
        ({"objective": "{loss: uld}", "soft_labels": "{form: sampled, align: text}"}, "objective.loss: 'uld' with"),
        ({"objective": "{temperature: 2.0}"}, "objective.temperature: not 1 with soft_labels.align text"),
        (
            {
                "teacher": "null",
                "teachers": "{a: {model: 'file:x'}, b: {model: 'file:y'}}",
                "ensembles": "{mix: {a: 1, b: 1}}",
            },
            "ensembles: with soft_labels.align",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path: Path, overrides: dict[str, str], line: str) -> None:
    with pytest.raises(InputError) as error:
        load_grid(write(tmp_path, **overrides))
    assert line in str(error.value)
