"""An encoder-decoder as the student: what the stages make of it, and whole grids on tiny models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import torch

from kdray.artifacts.aligned import Aligned, write_aligned
from kdray.artifacts.answers import read_answers
from kdray.artifacts.curve import read_curve
from kdray.artifacts.rows import Rows, rows_writer, write_split
from kdray.artifacts.scores import read_scores
from kdray.artifacts.source import AcrossTokens, LabelSource
from kdray.data.pieces import first_tokens
from kdray.data.tokenise import beginning
from kdray.distill.signals import open_signal
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder, load_tokenizer, save
from kdray.models.loaded import load_as
from kdray.orchestration.measurer import HeldoutRows, Measurer
from kdray.plan.inputs import RetokeniseInputs
from kdray.score.prompts import grid_prompts
from kdray.stages.generate import Generator
from kdray.stages.prepare import tokenise_slice
from kdray.stages.retokenise import retokenise_slice
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
from tests.answers import prompt_batch
from tests.here import run_here
from tests.tiny import write_encoder_decoder, write_grid, write_instructions, write_model
from tests.train.test_loop import SETTINGS

EXTRA = "Cairo Delhi livestock lives inside . " * 40  # of which the teacher's tokenizer makes tokens of its own


def write(folder: Path, family: str, **overrides: str) -> Path:
    source = f"source: 'file:{folder}/rows.jsonl', template: plain, max_prompt: 200, max_length: 256, heldout: 8"
    sections = {
        "student": f"{{model: 'file:{folder}/both'}}",
        "data": f"{{{source}}}",
        "train": "{steps: 3}",
        "axes": "{lr: [3.0e-3], batch: [4], alpha: [0, 1]}",
        "soft_labels": "{form: hidden, dtype: float32, align: position}",
        "objective": "{loss: uld}",
    }
    write_encoder_decoder(folder / "both", family, seed=2, extra=EXTRA)
    return write_grid(folder, **(sections | overrides))


TEMPLATE = {"name": "plain", "version": 1, "params": {}}
ULD = {"loss": {"name": "uld", "version": 1, "params": {}}, "temperature": 1.0, "weighting": "sum"}


def keep(folder: Path, stream: bytes) -> Rows:
    """Rows as a slice gives them, the last eight held out."""
    folder.mkdir()
    table = pa.ipc.open_stream(stream).read_all()
    with rows_writer(folder) as writer:
        writer.write_table(table)
    write_split(folder, range(len(table) - 8, len(table)), [])
    return Rows(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "begin"), [("t5", 0), ("bart", 1)])
def test_it_is_prepared_taught_asked_and_scored(family: str, begin: int, tmp_path: Path) -> None:
    ours, theirs = write_encoder_decoder(tmp_path / "model", family, extra=EXTRA), write_model(tmp_path / "teacher")
    lines = write_instructions(tmp_path / "rows.jsonl", 24).read_text().splitlines()
    datasets.Dataset.from_list([json.loads(line) for line in lines]).save_to_disk(tmp_path / "source")
    [file], numbers = (tmp_path / "source").glob("*.arrow"), {"id": list(range(len(lines)))}
    params = {"recipe": {"name": "dolly", "params": {}}, "template": TEMPLATE, "max_prompt": 200, "max_length": 256}
    [made] = tokenise_slice([str(file)], params, str(ours), numbers).to_pylist()
    assert (made["error"], made["long"], made["truncated"]) == ("", 0, 0)
    rows = keep(tmp_path / "data", made["rows"])

    [read] = retokenise_slice(str(tmp_path / "data"), str(ours), str(theirs), TEMPLATE, numbers).to_pylist()
    assert read["error"] == ""
    keep(tmp_path / "read", read["rows"])
    (_, tokenizer), other = load_folder(ours), load_tokenizer(theirs)
    assert len(beginning(tokenizer)) == begin
    assert read["position"] <= read["learned"] - begin * len(rows)
    write_aligned(tmp_path / "read", json.loads(read["pairs"]), first_tokens(other, tokenizer), begin)

    losses, positions = {}, {"text": "cross_entropy", "position": "uld"}
    for align, loss in positions.items():
        how = AcrossTokens(str(tmp_path / "read"), align, align == "text")  # type: ignore[arg-type]
        source = LabelSource(str(theirs), {"name": "online", "params": {}}, "float32", across=how)
        signal = open_signal([source], rows, "cpu", torch.float32)
        objective: dict[str, Any] = ULD | {"loss": {"name": loss, "version": 1, "params": {}}}
        settings = replace(SETTINGS, alpha=1.0, length=3.0, lr=1e-2, objective=objective)
        torch.manual_seed(0)
        model, _ = load_folder(ours)
        loop = Loop(
            ResponseModel(model), rows, settings, signal=signal, vocab_size=len(tokenizer), ranks=Ranks(), micro_batch=2
        )
        before = loop.heldout(4)["heldout_ce"]
        losses[align] = [step["soft"] for step in loop.steps()]
        assert loop.heldout(4)["heldout_ce"] < before
    assert all(soft > 0 for found in losses.values() for soft in found)
    assert max(losses["position"]) < 2  # a distance of two distributions

    save(loop.model.whole, tokenizer, tmp_path / "trained")
    (tmp_path / "answers").mkdir()
    prompts = grid_prompts("heldout_answers", rows, "unseen", 5, 512)
    batch = prompt_batch(tmp_path / "answers", prompts, model=tmp_path / "trained")
    Generator(load_as)(batch)
    answered = read_answers(tmp_path / "answers")
    assert [row["error"] for row in answered] == [None] * 5
    assert all(row["input_ids"][-1] == tokenizer.eos_token_id for row in answered)
    (tmp_path / "scores").mkdir()
    heldout = HeldoutRows(
        key="h",
        target=tmp_path / "scores",
        model=tmp_path / "trained",
        dtype="float32",
        data=tmp_path / "data",
        soft_labels=(),
        limit=None,
    )
    Measurer(load_as)(heldout)
    assert read_scores(tmp_path / "scores")["ce"].value == pytest.approx(loop.heldout(4)["heldout_ce"], rel=1e-4)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("one_ray")
def test_a_grid_trains_answers_and_scores_one(tmp_path: Path) -> None:
    plan, store, failed = run_here(write(tmp_path, "t5"))
    assert failed == {}
    rows, tokenizer = Rows(store.get(plan.prepare.key).path), load_tokenizer(tmp_path / "both")
    for row in (0, 1):
        ids, n = rows.input_ids(row), int(rows.prompt_lengths[row])
        assert ids[n - 1] == ids[-1] == tokenizer.eos_token_id  # the end of what is read, and of what is written
        assert tokenizer.decode(ids[n:-1]) == rows.text(row, "response")
    curves = {point.point.alpha: read_curve(store.get(point.train.key)) for point in plan.points}
    assert "soft" not in curves[0][0]
    assert 0 < curves[1][0]["soft"] < 2
    assert curves[0][0]["ce"] == pytest.approx(curves[1][0]["ce"], rel=1e-6)  # before the first step
    assert (
        store.get(plan.points[0].train.key).facts.get("padded").startswith("T5ForConditionalGeneration takes no packed")
    )
    for score in plan.scores:
        found = read_scores(store.get(score.measure.key).path)
        assert found.keys() & {"ce", "rougeL"}
        if score.generate and score.position is not None:
            answers = read_answers(store.get(score.generate.key).path)
            assert len(answers) == 6
            assert all(row["error"] is None and len(row["output_ids"]) <= 8 for row in answers)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.usefixtures("one_ray")
def test_a_grid_learns_a_teachers_answers_by_text(tmp_path: Path) -> None:
    """BART's tokenizer puts <s> before every response, which finds no token of the teacher's."""
    grid = write(
        tmp_path,
        "bart",
        soft_labels="{form: hidden, dtype: float32, align: text}",
        objective="{}",
        augment="{max_new_tokens: 8}",
        axes="{lr: [3.0e-3], batch: [4], alpha: [1], labels: [gold, teacher]}",
    )
    plan, store, failed = run_here(grid)
    assert failed == {}
    tokenizer = load_tokenizer(tmp_path / "both")
    begin = tokenizer("a").input_ids[0]
    for point in plan.points:
        rows = Rows(store.get(point.train.inputs.data.key).path)
        responses = [rows.input_ids(row)[int(rows.prompt_lengths[row]) :] for row in range(len(rows))]
        assert all(ids[0] == begin and begin not in ids[1:] for ids in responses)
        assert read_curve(store.get(point.train.key))[0]["soft"] > 0
    aligned = [Aligned(store.get(step.key).path) for step in plan.steps() if isinstance(step.inputs, RetokeniseInputs)]
    assert [some.begin for some in aligned] == [1, 1]
    assert all(0 not in some.pairs(row)[0] for some in aligned for row in range(8))
