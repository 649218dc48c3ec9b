"""No question is among its own solved examples: not by number, not as a double, wherever the examples come from."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import datasets
import pytest

from kdray.score.benchmark import Benchmark
from kdray.score.choices import lay_down_examples, lay_down_task
from kdray.spec import declare
from kdray.spec.components import bind
from kdray.spec.errors import InputError
from kdray.spec.refs import parse_reference
from kdray.store import Outer
from tests.score.test_benchmark import setting, write_task
from tests.tiny import write_model

TEXTS = ["red", "green", "blue", "black"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), hidden=64)


def arc(question: str, gold: int = 1, texts: list[str] = TEXTS) -> dict[str, Any]:
    return {
        "id": question,
        "question": question,
        "choices": {"text": texts, "label": list("ABCD")},
        "answerKey": "ABCD"[gold],
    }


def book(question: str, gold: int = 1, texts: list[str] = TEXTS) -> dict[str, Any]:
    return {"question_stem": question, "choices": {"text": texts, "label": list("ABCD")}, "answerKey": "ABCD"[gold]}


def swag(question: str, gold: int = 1, texts: list[str] = TEXTS) -> dict[str, Any]:
    return {"ctx_a": question, "ctx_b": "", "activity_label": "Painting", "endings": texts, "label": str(gold)}


def sense(question: str, gold: int = 1, texts: list[str] = TEXTS) -> dict[str, Any]:
    choices = {"label": list("ABCDE"), "text": [*texts, "none"]}
    return {"question": question, "choices": choices, "answerKey": "ABCDE"[gold]}


def mmlu(question: str, gold: int = 1, texts: list[str] = TEXTS) -> dict[str, Any]:
    return {"question": question, "choices": texts, "answer": gold, "subject": "paint"}


WRITERS = {"arc_easy": arc, "arc_challenge": arc, "openbookqa": book, "hellaswag": swag, "commonsense_qa": sense}
WRITERS |= {"lm_eval:arc_easy": arc, "lm_eval:mmlu_anatomy": mmlu}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def build(
    folder: Path,
    model: Path,
    name: str,
    rows: list[dict[str, Any]],
    shown: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> Benchmark:
    """The benchmark `name` of these rows, with solved examples of `shown` if there are any."""
    folder.mkdir(exist_ok=True)
    params = bind(declare.Task, name, {"source": f"file:{write_rows(folder / 'rows.jsonl', rows)}"}, "task")
    outer, task, examples = Outer(folder / "store"), folder / "task", None
    named = lay_down_task(name, params, parse_reference(params["source"]), outer, task)
    if shown:
        ref = parse_reference(f"file:{write_rows(folder / 'shown.jsonl', shown)}")
        examples = str(lay_down_examples(name, params, ref, outer, task))
    return Benchmark(setting(task, model, name=named, examples=examples, **fields))


def prompts(benchmark: Benchmark) -> dict[int, str]:
    return {request.doc_id: request.args[0] for request in benchmark.requests}


def question(i: int) -> str:
    return f"Which colour has thing {i}?"


@pytest.mark.parametrize(
    ("name", "chat"), [*((name, False) for name in WRITERS), ("arc_easy", True), ("commonsense_qa", True)]
)
def test_a_question_is_never_among_its_own_examples(name, chat, tmp_path, model):
    """All others of the file are shown, so that a question that may be shown is: each prompt holds it once."""
    rows = [WRITERS[name](question(i), i % 4) for i in range(6)]
    found = prompts(build(tmp_path / "a", model, name, rows, shots=5, chat_template=chat))
    assert len(found) == 6
    for number, prompt in found.items():
        assert [prompt.count(f"thing {i}?") for i in range(6)] == [1] * 6
        assert prompt.rindex(f"thing {number}?") == max(prompt.rindex(f"thing {i}?") for i in range(6))


@pytest.mark.parametrize("name", ["openbookqa", "hellaswag", "commonsense_qa", "lm_eval:mmlu_anatomy"])
def test_a_double_is_no_example_either_whatever_its_other_fields(name, tmp_path, model):
    rows = [WRITERS[name](question(i), i % 4) for i in range(4)]
    double = WRITERS[name](" WHICH colour\thas thing 0? ", 3, ["white", "pink", "grey", "brown"])
    found = prompts(build(tmp_path / "a", model, name, [*rows, double], shots=3))
    for number in (0, 4):
        assert found[number].lower().count("thing 0?") == 1
    with pytest.raises(
        InputError, match=r"shots: 4 solved examples, where a question finds 3 others with a right answer"
    ):
        build(tmp_path / "b", model, name, [*rows, double], shots=4)


def test_one_row_is_refused_and_does_not_show_its_own_answer(tmp_path, model):
    with pytest.raises(
        InputError, match=r"score\.tasks\.arc_easy\.shots: 1 solved examples, where a question finds 0 others"
    ):
        build(tmp_path / "a", model, "arc_easy", [arc(question(0))], shots=1)


@pytest.mark.parametrize("name", ["hellaswag", "commonsense_qa", "lm_eval:mmlu_anatomy"])
def test_examples_of_ones_own_are_shown_but_not_to_the_same_question(name, tmp_path, model):
    rows = [WRITERS[name](question(i), i % 4) for i in range(3)]
    shown = [WRITERS[name](f"Which smell has thing {i}?", i % 4) for i in range(2)] + [
        WRITERS[name](question(1).upper(), 2)
    ]
    found = prompts(build(tmp_path / "a", model, name, rows, shown, shots=2))
    for number, prompt in found.items():
        assert prompt.lower().count(f"thing {number}?") == 1 + prompt.lower().count(f"smell has thing {number}?")
        assert prompt.lower().count("has thing") == 3
    assert found[1].count("smell") == 2
    assert "colour has thing 0" not in found[2]
    with pytest.raises(InputError, match=r"shots: 3 solved examples, where a question finds 2 others"):
        build(tmp_path / "b", model, name, rows, shown, shots=3)


def test_an_example_of_ones_own_without_a_right_answer_is_not_shown(tmp_path, model):
    unanswered = [arc("Which smell has tin?") | {"answerKey": ""}, arc("Which smell has zinc?") | {"choices": None}]
    shown = [arc("Which smell has lead?"), *unanswered]
    rows = [arc(question(i)) for i in range(12)]
    assert all(
        "lead" in prompt for prompt in prompts(build(tmp_path / "a", model, "arc_easy", rows, shown, shots=1)).values()
    )


def test_prompts_do_not_depend_on_how_many_are_asked(tmp_path, model):
    rows = [arc(question(i), i % 4) for i in range(9)]
    whole = prompts(build(tmp_path / "a", model, "arc_easy", rows, shots=5))
    few = prompts(build(tmp_path / "b", model, "arc_easy", rows, shots=5, limit=4))
    assert few == {number: whole[number] for number in range(4)}
    assert (
        prompts(build(tmp_path / "c", model, "arc_easy", rows, shots=5, likelihood="shared_prefix", batch=1)) == whole
    )


def test_where_nothing_is_to_be_mended_the_examples_are_those_that_lm_eval_draws(tmp_path, model):
    """Of a split of its own, in lm-eval's order, drawn with its dice; and the first ones where a task says so."""
    rows, train = (
        [arc(question(i), i % 4) for i in range(3)],
        [arc(f"Which smell has thing {i}?", i % 4) for i in range(20)],
    )
    files = {
        "test": str(write_rows(tmp_path / "rows.jsonl", rows)),
        "train": str(write_rows(tmp_path / "train.jsonl", train)),
    }
    fields = {
        "doc_to_choice": "{{choices.text}}",
        "doc_to_target": "{{choices.label.index(answerKey)}}",
        "training_split": "train",
    }
    task = write_task(tmp_path / "a", rows, dataset_kwargs={"data_files": files}, **fields)
    dice = random.Random(1234)
    for number, prompt in prompts(Benchmark(setting(task, model, shots=4))).items():
        drawn = [train[i] for i in dice.sample(range(20), 4)]
        shown = [f"{row['question']} {TEXTS['ABCD'.index(row['answerKey'])]}\n\n" for row in drawn]
        assert prompt == "".join(shown) + question(number)
    task = write_task(
        tmp_path / "b", rows, dataset_kwargs={"data_files": files}, fewshot_config={"sampler": "first_n"}, **fields
    )
    for prompt in prompts(Benchmark(setting(task, model, shots=2))).values():
        assert prompt.startswith("Which smell has thing 0? red\n\nWhich smell has thing 1? green\n\n")


def test_of_examples_that_a_benchmark_brings_along_a_question_gets_those_that_are_left(tmp_path, model):
    """MMLU's are five a subject, and are always the same: with the question among them it has four."""
    samples = [{"question": question(i), "choices": TEXTS, "answer": 0} for i in range(2)]
    rows = [{"question": question(i), "choices": TEXTS, "answer": 1} for i in (1, 2)]
    task = write_task(tmp_path / "a", rows, fewshot_config={"sampler": "first_n", "samples": samples})
    found = prompts(Benchmark(setting(task, model, shots=2)))
    assert found[0] == f"{question(0)} red\n\n{question(1)}"
    assert found[1] == f"{question(0)} red\n\n{question(1)} red\n\n{question(2)}"
    with pytest.raises(InputError, match=r"score\.tasks\.ours\.shots: 3 solved examples"):
        Benchmark(setting(task, model, shots=3))


def test_a_task_that_lm_eval_gives_no_other_examples_for_is_mended_too(tmp_path, model):
    """A test split and nothing else: lm-eval draws from it, the question included."""
    rows = [{"question": question(i), "choices": TEXTS, "answer": i % 4} for i in range(4)]
    for split in ("test_split", "validation_split"):
        task = write_task(tmp_path / split, rows, **{"test_split": None, split: "test"})
        for prompt in prompts(Benchmark(setting(task, model, shots=3))).values():
            assert [prompt.count(question(i)) for i in range(4)] == [1] * 4


def test_fixed_examples_stay_with_data_of_ones_own(tmp_path, model):
    """bbh brings its examples along; questions of the file do not take their place."""
    rows = [{"input": f"not ( True ) and ( True ) is {i}", "target": "False"} for i in range(3)]
    found = prompts(build(tmp_path / "a", model, "lm_eval:bbh_fewshot_boolean_expressions", rows, shots=2))
    assert len(found) == 3
    assert all(prompt.count(" is 0") + prompt.count(" is 1") + prompt.count(" is 2") == 1 for prompt in found.values())


def test_examples_may_be_of_another_format_than_the_questions(tmp_path, model):
    folder = tmp_path / "a"
    folder.mkdir()
    datasets.Dataset.from_list([arc("Which smell has tin?")]).to_parquet(folder / "shown.parquet")
    params = bind(
        declare.Task, "arc_easy", {"source": f"file:{write_rows(folder / 'rows.jsonl', [arc(question(0))])}"}, "task"
    )
    outer, task = Outer(folder / "store"), folder / "task"
    name = lay_down_task("arc_easy", params, parse_reference(params["source"]), outer, task)
    examples = lay_down_examples("arc_easy", params, parse_reference(f"file:{folder / 'shown.parquet'}"), outer, task)
    found = prompts(Benchmark(setting(task, model, name=name, shots=1, examples=str(examples))))
    assert found[0] == f"Question: Which smell has tin?\nAnswer: green\n\nQuestion: {question(0)}\nAnswer:"
