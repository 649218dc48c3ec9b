"""An encoder-decoder as the student, in a whole grid on tiny models."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdray.artifacts.aligned import Aligned
from kdray.artifacts.answers import read_answers
from kdray.artifacts.curve import read_curve
from kdray.artifacts.rows import Rows
from kdray.artifacts.scores import read_scores
from kdray.models.load import load_tokenizer
from kdray.plan.inputs import RetokeniseInputs
from tests.here import run_here
from tests.tiny import write_encoder_decoder, write_grid

EXTRA = "Cairo Delhi livestock lives inside . " * 40  # of which the teacher's tokenizer makes tokens of its own


def write(folder: Path, family: str, **overrides: str) -> Path:
    source = f"source: 'file:{folder}/rows.jsonl', template: alpaca, max_prompt: 200, max_length: 256, heldout: 8"
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
