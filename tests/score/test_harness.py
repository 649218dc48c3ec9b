"""The tasks that ship for lm-eval run on its command line, with kdray's prompt and numbers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

import kdray
from kdray.data.templates.chat import chat
from kdray.models.load import load_folder
from kdray.score.metrics.rouge import score
from kdray.score.prompts import task_prompts
from kdray.spec import declare
from kdray.spec.components import bind
from kdray.spec.refs import parse_reference
from kdray.store import Outer
from tests.conftest import ROOT
from tests.tiny import write_model

HARNESS = ROOT / "kdray" / "score" / "harness"


@pytest.mark.slow
def test_lm_eval_runs_the_shipped_tasks_on_kdrays_prompts(tmp_path):
    assert HARNESS.parent.parent.parent == ROOT == __import__("pathlib").Path(kdray.__file__).parents[1]
    folder = write_model(tmp_path / "model", layers=1)
    article = " ".join(f"Ada {i}" for i in range(40))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"article": f"{article} {i}", "highlights": "Ada lives in Rome"}) + "\n" for i in range(2))
    )
    local = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": {"test": str(rows)}}}
    generation = {"until": [], "do_sample": False, "max_gen_toks": 8}
    task = {
        "include": str(HARNESS / "kdray_cnn_dailymail.yaml"),
        "task": "local",
        **local,
        "generation_kwargs": generation,
    }
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "local.yaml").write_text(yaml.safe_dump(task))
    command = [
        sys.executable,
        "-m",
        "lm_eval",
        "run",
        "--model",
        "hf",
        "--model_args",
        f"pretrained={folder},dtype=float32",
    ]
    command += ["--tasks", "local", "--include_path", str(tmp_path / "tasks"), "--device", "cpu", "--batch_size", "1"]
    command += ["--output_path", str(tmp_path / "out"), "--log_samples"]
    answer = subprocess.run(command, check=False, capture_output=True, cwd=ROOT, text=True)
    assert answer.returncode == 0, answer.stderr[-3000:]
    samples = [json.loads(line) for line in next((tmp_path / "out").rglob("samples_*.jsonl")).read_text().splitlines()]
    _, tokenizer = load_folder(folder)
    params = bind(declare.Task, "cnn_dailymail", {"source": f"file:{rows}", "prompt": "lm_eval"}, "task")
    ours = task_prompts(
        "cnn_dailymail", params, parse_reference(params["source"]), Outer(tmp_path / "store"), tokenizer, chat, None
    )
    assert [s["arguments"]["gen_args_0"]["arg_0"] for s in samples] == [
        tokenizer.decode(prompt.input_ids) for prompt in ours
    ]
    for sample in samples:
        text = sample["resps"][0][0].strip()
        assert text, "an empty summary"
        assert sample["rougeL"] == pytest.approx(score(text, ["Ada lives in Rome"])["rougeL"])
        assert sample["empty"] == 0


@pytest.mark.parametrize("name", ["xsum", "cnn_dailymail"])
def test_a_shipped_task_has_no_stop_that_leaves_a_summary_empty(name):
    text = (HARNESS / f"kdray_{name}.yaml").read_text().replace("!function ", "")
    task = yaml.safe_load(text)
    assert task["generation_kwargs"] == {"until": [], "do_sample": False, "max_gen_toks": 256}
    assert task["task"] == f"kdray_{name}"
