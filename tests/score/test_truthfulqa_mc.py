"""TruthfulQA's MC1, MC2 and MC3: from float64, as lm-eval has the first two, and under DoLa."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.special import log_softmax
from transformers import AutoModelForCausalLM

from kdray.check.benchmarks import official_tasks
from kdray.models.load import load_folder
from kdray.score.benchmark import Benchmark
from kdray.score.rows import Unusable
from kdray.score.tasks.truthfulqa_mc import PRIMER, process_results, question_of
from tests.models.test_dola import reference
from tests.score.test_benchmark import setting
from tests.score.test_shots import build
from tests.tiny import PLACES, write_model

ROWS: list[dict[str, Any]] = [
    {
        "question": f"Where is {place} now?",
        "best_answer": f"In {place}",
        "correct_answers": ["Nobody knows.", f"In {place}", "Where it was"][: 2 + i % 2],
        "incorrect_answers": ["In Rome or Oslo", "Nowhere.", "I live there", "is"][: 1 + i % 4],
    }
    for i, place in enumerate(PLACES)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), hidden=64, extra=PRIMER)


def scored(benchmark: Benchmark, model: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    loaded = load_folder(model)
    return benchmark.scores([row for part in range(len(benchmark.parts)) for row in benchmark.answer(part, *loaded)])


def defined(true: list[float], false: list[float]) -> list[float]:
    """MC1, MC2 and MC3 in percent, of log-likelihoods, the best answer's first."""
    p, q = np.exp(np.longdouble(true)), np.exp(np.longdouble(false))
    return [
        100 * float(true[0] > max(false)),
        100 * float(p.sum() / (p.sum() + q.sum())),
        100 * float(np.mean([t > max(false) for t in true])),
    ]


def asked(row: dict[str, Any]) -> tuple[list[str], list[str]]:
    dotted = [[f"{text.removesuffix('.')}." for text in row[name]] for name in ("correct_answers", "incorrect_answers")]
    best = f"{row['best_answer']}."
    return [best, *(text for text in dotted[0] if text != best)], dotted[1]


@pytest.mark.slow
@pytest.mark.parametrize("under", [None, "dola"])
def test_the_numbers_are_those_of_float64(under: str | None, tmp_path: Path, model: Path) -> None:
    contrast = under and json.dumps(
        {"name": "dola", "params": {"layers": [1, 2], "plausibility": 0.1, "softmax": False}}
    )
    benchmark = build(tmp_path / "a", model, "truthfulqa_mc", ROWS, under=contrast)
    double, tokenizer = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64), load_folder(model)[1]
    expected = []
    for row in ROWS:
        context = tokenizer(f"{PRIMER}Q: {row['question']}\nA:")["input_ids"]
        sides = []
        for texts in asked(row):
            side = []
            for text in texts:
                choice = tokenizer(f" {text}")["input_ids"]
                with torch.no_grad():
                    if under:
                        found = reference(double, [*context, *choice], [1, 2], 0.1, start=len(context) - 1)[0][:-1]
                        scores = np.where(np.isneginf(found), -1000.0, found)
                    else:
                        scores = log_softmax(
                            double(torch.tensor([[*context, *choice]])).logits[0, len(context) - 1 : -1].numpy(), axis=1
                        )
                side.append(sum(scores[i, token] for i, token in enumerate(choice)))
            sides.append(side)
        expected.append(defined(*sides))
    scores, rows, _ = scored(benchmark, model)
    assert [scores[f"mc{i}"]["value"] for i in (1, 2, 3)] == pytest.approx(np.mean(expected, axis=0).tolist(), rel=1e-3)
    assert [[100 * row[f"mc{i}"] for i in (1, 2, 3)] for row in rows] == [
        pytest.approx(one, rel=1e-3, abs=1e-6) for one in expected
    ]
    assert scores["mc1"]["n"] == len(ROWS)
    assert "ece" not in scores  # several answers are right


@pytest.mark.slow
def test_lm_evals_own_tasks_have_the_same_on_the_same_choices(tmp_path: Path, model: Path) -> None:
    ours = scored(build(tmp_path / "a", model, "truthfulqa_mc", ROWS), model)[0]
    docs = []
    for row in ROWS:
        true, false = asked(row)
        choices = {"mc1": [true[0], *false], "mc2": [*true, *false]}
        labels = {"mc1": [1] + [0] * len(false), "mc2": [1] * len(true) + [0] * len(false)}
        docs.append(
            {"question": row["question"]}
            | {f"{m}_targets": {"choices": choices[m], "labels": labels[m]} for m in choices}
        )
    for metric in ("mc1", "mc2"):
        folder = tmp_path / metric
        folder.mkdir()
        (folder / "rows.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
        task = {
            "include": str(official_tasks() / f"truthfulqa/truthfulqa_{metric}.yaml"),
            "task": "ours",
            "dataset_path": "json",
        }
        task |= {"dataset_name": None, "validation_split": None, "test_split": "test"}
        task |= {"dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}}
        (folder / "task.yaml").write_text(yaml.safe_dump(task))
        theirs = scored(Benchmark(setting(folder, model)), model)[0]["acc"]
        assert ours[metric] == {key: pytest.approx(value, rel=1e-5) for key, value in theirs.items()}


def test_sums_that_are_all_far_below_zero_have_a_mass() -> None:
    doc = {"right": [0, 1]}
    found = process_results(doc, [(-2000.0, False), (-1000.5, False), (-1000.0, False)])
    assert found == {"mc1": 0.0, "mc2": pytest.approx(np.exp(-0.5) / (1 + np.exp(-0.5))), "mc3": 0.0}
    assert (
        process_results(doc, [(-3.0, False), (-9.0, False), (-3.0, False)])["mc1"] == 0.0
    )  # as likely as a false one is not likelier


def test_a_table_and_the_hubs_rows_are_the_same_questions(tmp_path: Path, model: Path) -> None:
    hub = ROWS[1]
    table = {
        "Question": hub["question"],
        "Best Answer": f" {hub['best_answer']} ",
        "Correct Answers": "; ".join(hub["correct_answers"]),
    }
    table |= {"Incorrect Answers": "; ".join(hub["incorrect_answers"]) + ";"}
    assert (
        question_of(table)
        == question_of(hub)
        == {"question": hub["question"], "choices": [*asked(hub)[0], *asked(hub)[1]], "right": [0, 1, 2]}
    )
    for broken, reason in (
        ({"best_answer": "Elsewhere"}, "none of the correct ones"),
        ({"incorrect_answers": []}, "no incorrect answer"),
    ):
        with pytest.raises(Unusable, match=reason):
            question_of(hub | broken)
    benchmark = build(tmp_path / "a", model, "truthfulqa_mc", [hub | {"incorrect_answers": None}, hub])
    assert {request.doc_id for request in benchmark.requests} == {1}
    details = scored(benchmark, model)[2]
    assert details["left_out"] == {"kdray_truthfulqa_mc": {0: "Unusable: no incorrect answer"}}


@pytest.mark.realdata
def test_every_row_of_the_authors_table_can_be_asked(data_dir: Path) -> None:
    with (data_dir / "truthfulqa" / "TruthfulQA.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    made = [question_of(row) for row in rows]
    assert len(made) == 817
    assert {len(doc["choices"]) > len(doc["right"]) > 0 for doc in made} == {True}
