"""Multiple choice against the tool that everyone trusts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import yaml

from kdray.models.load import load_folder
from kdray.score.choices import lay_down_task, score_choices
from kdray.score.tasks.mmlu_bundled import documents
from kdray.spec.components import bind
from kdray.spec.refs import parse_reference
from kdray.store import Outer
from tests.tiny import write_model


def test_mmlu_questions_are_read_with_their_answers(tmp_path):
    text = (
        "The following are multiple choice questions.\n\nQ: What is 1+1?\n(A) 1 (B) 2 (C) 3 (D) 4\n"
        "A: Let's think step by step. It is two. The answer is (B).\n\n"
        "Q: A very long question " + "word " * 40 + "?\n(A) a (B) b (C) c (D) d\nA: Let's think. The answer is (A).\n\n"
    )
    path = tmp_path / "cot.json"
    path.write_text(json.dumps({"maths": text}))
    found = list(documents(path, max_words=30))
    assert found == [{"subject": "maths", "question": "What is 1+1?", "choices": ["1", "2", "3", "4"], "answer": 1}]
    assert len(list(documents(path, max_words=100))) == 2


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("name", ["arc_easy", "openbookqa", "hellaswag"])
def test_choices_equal_the_lm_eval_command_line_exactly(tmp_path, data_dir, name):
    """Same model, items, dtype and batch size; a random model, because equality is what is tested."""
    folder = write_model(tmp_path / "model", hidden=64)
    source = data_dir / {"arc_easy": "arc_easy.test.jsonl", "openbookqa": "openbookqa.test.jsonl", "hellaswag": "hellaswag.val.jsonl"}[name]
    params = bind("task", name, {"source": f"file:{source}", "limit": 24}, "task")
    lay_down_task(name, params, parse_reference(params["source"]), Outer(tmp_path / "store"), tmp_path / "task")
    model, tokenizer = load_folder(folder, torch.float32)
    scores, rows = score_choices(model, tokenizer, name, params, tmp_path / "task", batch=4)

    task = yaml.safe_load((tmp_path / "task" / "task.yaml").read_text())["task"]
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--tasks", task, "--limit", "24", "--batch_size", "4"]
    command += ["--model_args", f"pretrained={folder},dtype=float32", "--include_path", str(tmp_path / "task"), "--device", "cpu"]
    command += ["--output_path", str(tmp_path / "out"), "--log_samples"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    results = json.loads(next((tmp_path / "out").rglob("results_*.json")).read_text())["results"][task]
    samples = [json.loads(line) for line in next((tmp_path / "out").rglob("samples_*.jsonl")).read_text().splitlines()]
    for metric in ("acc", "acc_norm"):
        assert scores[metric]["value"] == 100 * results[f"{metric},none"]
        assert scores[metric]["stderr"] == 100 * results[f"{metric}_stderr,none"]
    theirs = {s["doc_id"]: [float(r[0]) for r in s["filtered_resps"]] for s in samples}
    assert {row["example"]: row["loglikelihoods"] for row in rows} == theirs
    assert len(rows) == 24
