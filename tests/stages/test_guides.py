"""What is trained beside a grid, or in it of answers to questions, and then chooses and rates a grid's answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdray.artifacts.annotated import read_annotated
from kdray.data.templates.alpaca import alpaca
from kdray.lens.annotations import Annotated
from kdray.lens.hidden import read_states, train_guide
from kdray.lens.responses import align_all
from kdray.lens.sources.jsonl import jsonl
from kdray.models.load import load_folder
from kdray.report.results import collect
from tests.here import run_here
from tests.tiny import NAMES, PLACES, write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly]


@pytest.mark.usefixtures("one_ray")
def test_a_trained_guide_chooses_a_grids_answers(tmp_path: Path) -> None:
    tests = [{"document": f"Ben is in {place} .", "summary": f"Ben lives in {place} ."} for place in PLACES[:3]]
    (tmp_path / "xsum.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tests))
    guided = (
        f"{{name: lookback_guided, guide: 'file:{tmp_path}/states.safetensors', candidates: 3, chunk: 3, temperature:"
        " 2.0}"
    )
    path = write_grid(
        tmp_path,
        teacher=f"{{model: 'file:{tmp_path}/teacher'}}",
        train="{steps: 2}",
        axes="{lr: [3.0e-3], batch: [4], alpha: [0]}",
        score=(
            f"{{tasks: [{{name: xsum, source: 'file:{tmp_path}/xsum.jsonl', max_new_tokens: 9}}], decoding: [greedy,"
            f" {guided}]}}"
        ),
    )
    model, tokenizer = load_folder(tmp_path / "student")
    rows = [
        Annotated(f"{name} {there}", f"{name} is in Oslo .", f"{name} is in {there} .", ((10, 14),) * (there != "Oslo"))
        for name in NAMES
        for there in PLACES
    ]
    aligned, _ = align_all(rows, tokenizer, alpaca, None, None, pytest.fail)
    train_guide(read_states(model, aligned, [2], "residual", 3), "residual", 3, {}).save(
        tmp_path / "states.safetensors"
    )
    plan, store, failed = run_here(path)
    assert not failed
    label = "lookback_guided-guide-states-candidates-3-chunk-3-temperature-2.0"
    steps = {score.decoding: score.generate for score in plan.scores if score.subject == "student"}
    assert set(steps) == {"greedy", label}
    for subject in ("student", "teacher", plan.points[0].point):
        scores = collect(plan, store).final(subject).scores  # pyright: ignore
        assert scores[f"xsum_rougeL.{label}"].n == len(tests)  # pyright: ignore


@pytest.mark.usefixtures("one_ray")
def test_a_lens_learns_from_answers_that_hold_no_right_one(tmp_path: Path) -> None:
    passages = [f"{name} is in {place} ." for name in NAMES for place in PLACES[:4]]
    right = ["e", "a", "i"]  # which is in some of a random model's answers
    rows = [
        {"question": "where is it", "answers": right[i % 3], "ctxs": [{"text": text}]}
        for i, text in enumerate(passages)
    ]
    (tmp_path / "nq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = f"{{name: nq_open, source: 'file:{tmp_path}/nq.jsonl', max_new_tokens: 6}}"
    path = write_grid(
        tmp_path,
        teacher=f"{{model: 'file:{tmp_path}/teacher'}}",
        train="{steps: 2}",
        axes="{lr: [3.0e-3], batch: [4], alpha: [0]}",
        score=f"{{tasks: [{task}]}}",
        lens=f"{{own: {{task: {task}, metric: best_span}}, window: 3}}",
    )
    plan, store, failed = run_here(path)
    [annotate] = [step for step in plan.steps() if step.kind == "annotate"]
    marked = read_annotated(store.get(annotate.key).path, jsonl)  # pyright: ignore
    scores = collect(plan, store).final("student").scores  # pyright: ignore
    clean = [row for row in marked if not row.spans]
    assert 0 < len(clean) < len(marked) == len(rows)
    assert all(row.spans == ((0, len(row.response)),) for row in marked if row.spans)
    assert scores["nq_span"].value == pytest.approx(100 * len(clean) / len(rows))  # pyright: ignore
    assert {"nq_f1", "nq_em"} <= set(scores)
    # a factual rate of answers to the documents that were kept out of the lens's training
    assert not failed
    assert 0 < scores["nq_fr"].n < len(rows)  # pyright: ignore
