"""`kdray score`: models that kdray did not train, through the same pipelines, records and MLflow runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pyarrow.parquet as pq
import pytest

from kdray.artifacts.parts import parts
from kdray.models.likelihood import SharedPrefix
from kdray.models.load import Latest, load_folder
from kdray.models.loaded import load_as
from kdray.orchestration.measurer import BenchmarkPart, Measurer
from kdray.score.decodings.greedy import greedy
from kdray.score.prompts import Prompt
from kdray.stages.generate import answer_all
from kdray.store import Store
from tests.conftest import safetensors_of
from tests.test_run import wait_until
from tests.tiny import write_model

MAIN = "from kdray.cli import main; main()"


def kdray(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


@pytest.mark.ray
@pytest.mark.slow
def test_scoring_that_is_interrupted_ends_soon_and_says_no_more_than_that(tmp_path):
    """In the middle of a batch that takes long: nobody waits for it, and no thread of Ray's starts anything anew."""
    model = write_model(tmp_path / "model", layers=8, hidden=512)
    rows = [{"document": f"Ada is in Paris . Ben is in Rome {i} .", "summary": "Ada"} for i in range(128)]
    (tmp_path / "xsum.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = f"{{name: xsum, source: 'file:{tmp_path}/xsum.jsonl', max_new_tokens: 450}}"
    command = ["score", "--tasks", task, "--batch", "128", "--store", tmp_path / "store", "--model", f"file:{model}"]
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *map(str, command)],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: [*(tmp_path / "store" / "generate").glob("*/attempt-*")], process)
        time.sleep(10)  # until its actor is at work
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said == "interrupted: nothing finished is lost, the same command goes on\n"
    assert not [*(tmp_path / "store" / "generate").glob("*/DONE")], "the batch is not waited for"
    assert psutil.wait_procs(family, timeout=30)[1] == [], "nothing runs on"


@pytest.mark.ray
@pytest.mark.slow
def test_two_models_are_scored_and_a_new_metric_asks_them_nothing_again(tmp_path):
    models = [write_model(tmp_path / name, layers=layers, seed=layers) for name, layers in (("one", 1), ("two", 2))]
    rows = [
        {"document": f"Ada is in Paris . Ben is in Rome {i} .", "summary": f"Ada lives in Paris {i}"} for i in range(5)
    ]
    (tmp_path / "xsum.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = f"{{name: xsum, source: 'file:{tmp_path}/xsum.jsonl', max_new_tokens: 6}}"
    command = ["score", "--tasks", task, "--limit", 4, "--batch", 3, "--store", tmp_path / "store"]
    command += [part for model in models for part in ("--model", f"file:{model}")]
    first = kdray(*command, cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "value ± standard error" in first.stdout
    assert "xsum_rougeL" in first.stdout
    store = Store(tmp_path / "store")

    def artifacts(kind):
        return {path.parent.name: path.stat().st_mtime_ns for path in (store.root / kind).glob("*/DONE")}

    generated, measured = artifacts("generate"), artifacts("measure")
    assert len(generated) == len(measured) == 2
    slow = [
        f"{{name: {name}, model: 'file:{models[0]}'{more}}}"
        for name, more in (("support_standin", ""), ("selfcheck", ", samples: 2"))
    ]
    extra = ["--metrics", ", ".join(["chrf", *slow])]
    second = kdray(*command, *extra, cwd=tmp_path)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "xsum_support" in second.stdout
    kept = artifacts("generate")
    assert {name: kept[name] for name in generated} == generated, "a model was asked again"
    assert len(kept) == 2 + 2 * 2  # two samples of each
    folder = next(path.parent for path in (store.root / "generate").glob("one-xsum-greedy-*/DONE"))
    answers = [row for part in sorted(folder.glob("*/part-*.parquet")) for row in pq.read_table(part).to_pylist()]
    assert sorted(row["example"] for row in answers) == [0, 1, 2, 3]
    assert all(row["error"] is None and len(row["output_ids"]) <= 6 for row in answers)
    third = kdray(*command, *extra, cwd=tmp_path)
    assert "are done" in third.stdout
    assert "starting Ray" not in third.stdout

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/store/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("store").experiment_id])
    assert sorted(run.info.run_name for run in found) == ["one", "report", "two"]
    runs = [run for run in found if run.info.run_name != "report"]
    assert {"xsum_rougeL", "xsum_rouge1", "xsum_chrf", "xsum_support", "xsum_selfchk"} <= set(runs[0].data.metrics)
    files = {
        file.path for folder in ("examples", "answers") for file in client.list_artifacts(runs[0].info.run_id, folder)
    }
    assert any(name.endswith("-xsum-greedy.parquet") for name in files), files
    assert any(name.endswith("-xsum-greedy.json") for name in files), files


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tasks", "xsun"], "no task 'xsun'; did you mean 'xsum'?"),
        (["--tasks", "heldout_loss"], "'heldout_loss' is about a grid's own data; leave it out"),
        (["--tasks", "xsum", "--metrics", "truthful"], "none of the grid's tasks gives what 'truthful' needs"),
        (["--tasks", "{name: xsum, source: file:none.jsonl}"], "--tasks.0.source: no file none.jsonl"),
        (["--tasks", "xsum", "--template", "chatt"], "--template: no template 'chatt'"),
        (
            ["--tasks", "xsum", "--decoding", "{name: lookback_guided, guide: lens}"],
            "--decoding.0.guide: 'lens', but there is none",
        ),
        (
            ["--tasks", "xsum", "--decoding", "{name: dola, layers: [9]}"],
            "--decoding.0.layers: [9]; layers from 1 to 1",
        ),
        (
            ["--tasks", "{name: arc_easy, untrained_shots: 2}"],
            "untrained_shots: 2, where the models that are scored are not of both",
        ),
        (["--tasks", "xsum", "--lens", "file:nowhere"], "--lens: no file or folder nowhere"),
        (["--tasks", "xsum", "--lens", "hf:org/lens"], "--lens: 'hf:org/lens'"),
        (
            ["--tasks", "arc_easy", "--lens", "file:lens"],
            "--lens: none of the grid's tasks has answers that it can rate",
        ),
    ],
)
def test_what_cannot_be_scored_is_said_in_one_line(arguments, said, run, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    config = json.dumps(
        {
            "model_type": "llama",
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "hidden_size": 8,
            "tie_word_embeddings": True,
        }
    )
    for name, text in (("config.json", config), ("tokenizer.json", "{}")):
        (model / name).write_text(text)
    (model / "model.safetensors").write_bytes(safetensors_of(b"a"))
    code, stdout, stderr = run("score", "--model", f"file:{model}", *arguments, "--store", tmp_path / "store")
    assert (code, stdout) == (2, "")
    assert said in " ".join(stderr.split())
    assert not (tmp_path / "store").exists()


def test_a_model_without_a_tokenizer_is_refused(run, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("")
    code, _, stderr = run("score", "--model", f"file:{tmp_path}", "--tasks", "xsum")
    assert code == 2
    assert "--model: no tokenizer in" in stderr


def test_a_failing_prompt_drops_none_of_its_batch(tmp_path):
    model, tokenizer = load_folder(write_model(tmp_path / "model", layers=1))
    prompts = [Prompt(i, tokenizer(f"Ada is in Rome {i}")["input_ids"], "", "", [], []) for i in range(3)]

    def decode(model, tokenizer, batch, max_new_tokens, /):
        if any(prompt.example == 1 for prompt in batch):
            raise ValueError("no")
        return greedy(model, tokenizer, batch, max_new_tokens)

    answers = answer_all(decode, model, tokenizer, prompts, 4)
    assert answers[1] == "ValueError: no"
    assert [answers[0], answers[2]] == [greedy(model, tokenizer, [prompts[i]], 4)[0] for i in (0, 2)]

    def broken(*_):
        raise RuntimeError("device")

    with pytest.raises(RuntimeError, match="device"):  # not the prompts' fault: another attempt may do better
        answer_all(broken, model, tokenizer, prompts, 4)


def test_a_models_own_settings_of_generation_do_not_leak_in(tmp_path):
    model, tokenizer = load_folder(write_model(tmp_path / "model", layers=1))
    prompt = Prompt(0, tokenizer("Ada is in Rome")["input_ids"], "", "", [], [])
    plain = greedy(model, tokenizer, [prompt], 8)
    model.generation_config.repetition_penalty = 50.0
    model.generation_config.suppress_tokens = plain[0][:1]
    model.generation_config.min_new_tokens = 8
    assert greedy(model, tokenizer, [prompt], 8) == plain


def test_a_model_is_looked_into_once_for_all_parts_of_its_benchmarks(tmp_path, monkeypatch):
    folder, given = write_model(tmp_path / "model", layers=1), []

    class Benchmark:
        setting = SimpleNamespace(likelihood="shared_prefix")

        def answer(self, index, model, tokenizer, shared):
            given.append(shared)
            return [{"request": index, "loglikelihood": 0.0, "greedy": True, "text": None, "error": None}]

    monkeypatch.setattr("kdray.orchestration.measurer.benchmark_of", lambda item: Benchmark())
    measure = Measurer(Latest(load_as))
    for i in range(3):
        measure(BenchmarkPart(key="x", index=i, target=tmp_path, model=folder, dtype="float32", task="", setting={}))
    assert len(parts(tmp_path)) == 3
    assert len(set(map(id, given))) == 1
    assert isinstance(given[0], SharedPrefix)
