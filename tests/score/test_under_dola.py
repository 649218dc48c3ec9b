"""Multiple choice under DoLa: choices are scored by the contrast of layers, all else is as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from transformers import AutoModelForCausalLM

from kdray.models.load import load_folder
from kdray.score.benchmark import Benchmark
from kdray.score.calibration import Choice
from kdray.spec.errors import InputError
from tests.models.test_dola import reference
from tests.score.test_shots import arc, build, question
from tests.tiny import write_model

LAYERS = [1, 2]
ROWS = [arc(question(i), i % 4, ["red", "green as grass", "blue", "black or brown"]) for i in range(5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), hidden=64)


def under(softmax: bool = True, layers: Any = LAYERS) -> str:
    return json.dumps({"name": "dola", "params": {"layers": layers, "plausibility": 0.1, "softmax": softmax}})


def answered(benchmark: Benchmark, model: Path, order: int = 1) -> list[dict[str, Any]]:
    loaded = load_folder(model)
    return [row for part in list(range(len(benchmark.parts)))[::order] for row in benchmark.answer(part, *loaded)]


@pytest.mark.slow
@pytest.mark.parametrize("softmax", [True, False])
def test_choices_are_scored_as_in_float64(softmax: bool, tmp_path: Path, model: Path) -> None:
    plain = build(tmp_path / "a", model, "arc_easy", ROWS)
    contrasted = build(tmp_path / "b", model, "arc_easy", ROWS, under=under(softmax))
    assert [request.args for request in contrasted.requests] == [request.args for request in plain.requests]
    rows = {row["request"]: row["loglikelihood"] for row in answered(contrasted, model)}
    double = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    for number, (context, choice) in contrasted.tokens.items():
        with torch.no_grad():
            ratios = reference(double, [*context, *choice], LAYERS, 0.1, start=len(context) - 1)[0][:-1]
        ratios = np.where(np.isneginf(ratios), -1000.0, ratios)
        scores = log_softmax(ratios, axis=1) if softmax else ratios
        assert rows[number] == pytest.approx(sum(scores[i, token] for i, token in enumerate(choice)), rel=1e-4)
    scores, examples, _ = contrasted.scores(answered(contrasted, model))
    chosen = [Choice(row["loglikelihoods"], row["gold"]) for row in examples]
    assert scores["acc"]["value"] == pytest.approx(20 * sum(one.chosen == one.gold for one in chosen))
    before = plain.scores(answered(plain, model))[1]
    assert [row["loglikelihoods"] for row in examples] != [row["loglikelihoods"] for row in before]
    assert [row["gold"] for row in examples] == [row["gold"] for row in before]


@pytest.mark.slow
def test_numbers_depend_on_no_order_and_no_path(tmp_path: Path, model: Path) -> None:
    made = [
        build(tmp_path / "a", model, "arc_easy", ROWS, under=under(), likelihood=way, batch=size)
        for way, size in (("hflm", 4), ("shared_prefix", 9))
    ]
    assert made[0].scores(answered(made[0], model))[:2] == made[1].scores(answered(made[1], model, order=-1))[:2]


def test_a_context_beyond_the_window_loses_its_beginning(tmp_path: Path, model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (tmp_path / "short").mkdir()
    for file in model.iterdir():
        (tmp_path / "short" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "short" / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 24}))
    rows = [arc("thing " * 20, 1)]
    benchmark = build(tmp_path / "a", tmp_path / "short", "arc_easy", rows, under=under())
    assert benchmark.truncated == 4
    assert {len(context) + len(choice) for context, choice in benchmark.tokens.values()} == {
        25
    }  # the last token is never read
    assert all(row["loglikelihood"] is not None for row in answered(benchmark, tmp_path / "short"))


def test_a_task_that_lets_models_write_is_refused(tmp_path: Path, model: Path) -> None:
    from tests.score.test_benchmark import setting, write_task

    folder = write_task(
        tmp_path / "task", [{"question": "Q", "answer": "A"}], output_type="generate_until", doc_to_choice=None
    )
    with pytest.raises(InputError, match=r"score\.choices: dola of 'ours', which lets models write; "):
        Benchmark(setting(folder, model, under=under()))
