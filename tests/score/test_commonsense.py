"""CommonsenseQA: what a model is trained on is what it is asked, and small letters may be answers too."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from kdray.data.example import Example
from kdray.data.recipes.commonsense_qa import commonsense_qa
from kdray.data.templates.chat import chat
from kdray.data.templates.plain import plain
from kdray.data.tokenise import tokenise
from kdray.models.load import load_folder, load_tokenizer
from kdray.score.benchmark import Benchmark
from kdray.score.spellings import together
from tests.score.test_shots import build, question, sense
from tests.tiny import write_model

ROWS = [sense(question(i), i % 5) for i in range(6)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), hidden=64, extra="Question: Answer: A B C D E a b c d e")


def scored(benchmark: Benchmark, model: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    loaded = load_folder(model)
    rows = [row for part in range(len(benchmark.parts)) for row in benchmark.answer(part, *loaded)]
    return benchmark.scores(rows)[:2]


def require_same_tokens(rows: list[dict[str, Any]], benchmark: Benchmark, model: Path) -> None:
    """Every row as training has it, prompt and answer, is one of the benchmark's requests, token for token."""
    tokenizer = load_tokenizer(model)
    examples: list[Any] = [commonsense_qa(row) for row in rows]
    for number, made in enumerate(tokenise(examples, plain, tokenizer, 400, 500, before=" ")):
        [row], prompt = made, made[0].input_ids[: made[0].n_prompt]
        asked = [benchmark.tokens[i] for i, request in enumerate(benchmark.requests) if request.doc_id == number]
        assert {tuple(context) for context, _ in asked} == {tuple(prompt)}
        assert (prompt, row.input_ids[row.n_prompt : -1]) in asked


def test_the_recipe_behind_plain_trains_on_the_tasks_own_prompts(tmp_path, model):
    require_same_tokens(ROWS, build(tmp_path / "a", model, "commonsense_qa", ROWS), model)


@pytest.mark.slow
@pytest.mark.realdata
def test_so_it_is_for_real_questions(tmp_path, model, data_dir):
    lines = (data_dir / "commonsense_qa.validation.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[:60]]
    assert {row["answerKey"] for row in rows} == set("ABCDE")
    require_same_tokens(rows, build(tmp_path / "a", model, "commonsense_qa", rows), model)


def test_behind_chat_it_does_so_where_the_task_has_the_chat_template(tmp_path, model):
    benchmark = build(tmp_path / "a", model, "commonsense_qa", ROWS, chat_template=True)
    first = commonsense_qa(ROWS[0])
    assert isinstance(first, Example)
    tokenizer = load_tokenizer(model)
    assert benchmark.requests[0].args == (chat(first, tokenizer), "A")
    assert (
        tokenizer.decode(benchmark.tokens[0][1]) == "\nA"
    )  # what ends the prompt is counted to the answer, as docs/scoring.md says


@pytest.mark.parametrize("likelihood", ["hflm", pytest.param("shared_prefix", marks=pytest.mark.slow)])
def test_in_either_case_a_choice_is_as_likely_as_both_its_spellings(likelihood, tmp_path, model):
    plainly = build(tmp_path / "a", model, "commonsense_qa", ROWS, likelihood=likelihood)
    both = build(tmp_path / "b", model, "commonsense_qa", ROWS, either_case=True, likelihood=likelihood)
    assert [request.args[1] for request in both.requests[:10]] == [f" {letter}" for letter in "ABCDEabcde"]
    assert both.requests[0].args == plainly.requests[0].args
    (one, capitals), (two, summed) = scored(plainly, model), scored(both, model)
    loaded = load_folder(model)
    alone = {
        row["request"]: row["loglikelihood"] for part in range(len(both.parts)) for row in both.answer(part, *loaded)
    }
    for number, (row, before) in enumerate(zip(summed, capitals, strict=True)):
        expected = [math.log(math.exp(alone[10 * number + i]) + math.exp(alone[10 * number + i + 5])) for i in range(5)]
        assert row["loglikelihoods"] == pytest.approx(expected, abs=1e-9)
        assert row["chosen"] == max(range(5), key=expected.__getitem__)
        assert row["gold"] == before["gold"]
        assert row["acc"] == float(row["chosen"] == row["gold"])
        assert all(after > least for after, least in zip(row["loglikelihoods"], before["loglikelihoods"], strict=True))
    assert two["acc"]["value"] == pytest.approx(100 * sum(row["acc"] for row in summed) / 6)
    assert two["wrong_nll"]["value"] < one["wrong_nll"]["value"]


def test_a_question_of_which_one_spelling_fails_counts_nowhere(tmp_path, model):
    benchmark = build(tmp_path / "a", model, "commonsense_qa", ROWS, either_case=True)
    loaded = load_folder(model)
    rows = [row for part in range(len(benchmark.parts)) for row in benchmark.answer(part, *loaded)]
    failed = [row | ({"error": "lost", "loglikelihood": None} if row["request"] == 7 else {}) for row in rows]
    scores, examples, details = benchmark.scores(failed)
    assert (scores["acc"]["n"], details["failed"]) == (5, 1)
    assert (examples[0]["error"], examples[0]["loglikelihoods"], examples[0]["gold"]) == ("lost", [], None)
    assert all(len(row["loglikelihoods"]) == 5 for row in examples[1:])


def test_likelihoods_too_small_for_a_number_are_summed_all_the_same():
    assert together([(-1000.0, False), (-1.0, True), (-1000.0, True), (-800.0, False)]) == [
        (pytest.approx(-1000 + math.log(2)), True),
        (pytest.approx(-1.0), True),
    ]
