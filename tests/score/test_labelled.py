"""Rows without a right answer are left out and counted, and take no other row along."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kdray.score.benchmark import Benchmark
from kdray.spec.errors import InputError
from tests.score.test_benchmark import answers, setting, write_task
from tests.score.test_shots import TEXTS, WRITERS, build, model, prompts, question  # noqa: F401 - a fixture among them

LABEL = {"hellaswag": "label", "lm_eval:mmlu_anatomy": "answer"}
CHOICES = {"hellaswag": "endings"}
ASKS = {"hellaswag": "ctx_a", "openbookqa": "question_stem"}


def spoil(name: str, row: dict[str, Any], how: str) -> dict[str, Any]:
    row = copy.deepcopy(row)
    label, choices, asks = LABEL.get(name, "answerKey"), CHOICES.get(name, "choices"), ASKS.get(name, "question")
    nested = isinstance(row[choices], dict)
    match how:
        case "null label":
            row[label] = None
        case "no label":
            row[label] = ""
        case "unknown label":
            row[label] = 7 if isinstance(row[label], int) else "Z" if nested else "7"
        case "negative label":
            row[label] = -1
        case "no choices":
            row[choices] = {"text": [], "label": []} if nested else []
        case "null choices":
            row[choices] = None
        case "a null choice":
            if nested:
                row[choices]["text"][2] = None
            else:
                row[choices][2] = None
        case "null question":
            row[asks] = None
    return row


HOW = [
    "null label",
    "no label",
    "unknown label",
    "negative label",
    "no choices",
    "null choices",
    "a null choice",
    "null question",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arc_easy", "openbookqa", "hellaswag", "commonsense_qa", "lm_eval:mmlu_anatomy"])
def test_bad_rows_are_left_out_and_no_other_with_them(name, tmp_path, model):  # noqa: F811
    """Of every kind one, among good rows and before them; the good ones are asked as if they stood alone, under their
    own numbers.
    """
    good = [WRITERS[name](question(i), i % 4) for i in range(4)]
    bad = [spoil(name, WRITERS[name](f"Spoilt by {how}?"), how) for how in HOW]
    rows, kept = [*bad[:3], good[0], *bad[3:], *good[1:]], [3, 9, 10, 11]
    benchmark = build(tmp_path / "a", model, name, rows, shots=0)
    asked, whole = prompts(benchmark), prompts(build(tmp_path / "b", model, name, good, shots=0))
    assert asked == dict(zip(kept, whole.values(), strict=True))

    scores, examples, details = benchmark.scores(answers(benchmark, model))
    assert [row["example"] for row in examples] == kept
    assert [row["gold"] for row in examples] == [0, 1, 2, 3]
    assert {scores[metric]["n"] for metric in ("acc", "ece", "brier")} == {4}
    assert (details["unlabelled"], details["failed"]) == (len(HOW), 0)
    assert [*next(iter(details["left_out"].values()))] == [i for i in range(12) if i not in kept]

    shown = prompts(build(tmp_path / "c", model, name, rows, shots=2, limit=2))
    assert [*shown] == kept[:2]  # so many questions, not rows
    assert not any("Spoilt" in prompt or "None" in prompt for prompt in shown.values())


@pytest.mark.parametrize("name", ["arc_easy", "hellaswag", "commonsense_qa"])
@pytest.mark.parametrize("how", ["no label", "null label"])
def test_a_source_without_any_right_answer_is_refused(name, how, tmp_path, model):  # noqa: F811
    rows = [spoil(name, WRITERS[name](question(i)), how) for i in range(3)]
    with pytest.raises(InputError, match=rf"score\.tasks\.{name}\.source: none of 3 rows can be asked"):
        build(tmp_path / "a", model, name, rows)


def test_letters_and_numbers_are_labels_alike(tmp_path, model):  # noqa: F811
    numbered = {"question": question(1), "choices": {"text": TEXTS[:3], "label": list("123")}, "answerKey": "3"}
    benchmark = build(
        tmp_path / "a", model, "arc_easy", [WRITERS["arc_easy"](question(0), 3) | {"id": None}, numbered | {"id": None}]
    )
    scores, rows, _ = benchmark.scores(answers(benchmark, model))
    assert ([row["gold"] for row in rows], scores["acc"]["n"]) == ([3, 2], 2)


@pytest.mark.slow
def test_labels_of_two_types_do_not_spoil_the_table(tmp_path, model):  # noqa: F811
    rows = [WRITERS["hellaswag"](question(i)) | {"label": label} for i, label in enumerate([2, "", "1", None])]
    benchmark = build(tmp_path / "a", model, "hellaswag", rows)
    assert [row["gold"] for row in benchmark.scores(answers(benchmark, model))[1]] == [2, 1]


@pytest.mark.parametrize(
    ("gold", "kept"),
    [
        ([0, None, 2], [0, 2]),
        ([3, 1, -1], [1]),
        (["Rome", "Oslo", "rome"], [0, 1]),
        ([[0, 1], [], [1, 5]], [0]),
        ([True, 1, 1.5], [0, 1]),
    ],
)
def test_of_any_task_the_answer_must_be_a_choice(gold, kept, tmp_path, model):  # noqa: F811
    rows = [
        {"question": f"Where is {i}?", "choices": ["Rome", "Oslo", "Lima"], "answer": answer}
        for i, answer in enumerate(gold)
    ]
    assert [*prompts(Benchmark(setting(write_task(tmp_path / "a", rows), model)))] == kept


def test_what_a_task_counts_in_its_own_way_is_left_to_it(tmp_path, model):  # noqa: F811
    (tmp_path / "own.py").write_text("def count(doc, results):\n    return {'acc': 1.0}\n")
    rows = [{"question": f"Where is {i}?", "choices": ["Rome", "Oslo"], "answer": None} for i in range(2)]
    task = write_task(tmp_path / "a", rows)
    (task / "own.py").write_text((tmp_path / "own.py").read_text())
    (task / "task.yaml").write_text((task / "task.yaml").read_text() + "process_results: !function own.count\n")
    benchmark = Benchmark(setting(task, model))
    assert benchmark.scores(answers(benchmark, model))[0]["acc"] == {"value": 100.0, "stderr": 0.0, "n": 2}


def test_a_question_in_the_choices_is_no_double_of_all_others(tmp_path, model):  # noqa: F811
    """Tasks of minimal pairs have no text of their own before the choices."""
    rows = [{"choices": [f"{i} is", f"{i} are"], "answer": 0} for i in range(4)]
    task = write_task(tmp_path / "a", rows, doc_to_text="")
    for number, prompt in prompts(Benchmark(setting(task, model, shots=3))).items():
        assert [f"{i} is" in prompt for i in range(4)] == [i != number for i in range(4)]


def test_a_gap_among_whole_numbers_of_a_table_spoils_no_other_label(tmp_path, model):  # noqa: F811
    task = write_task(tmp_path / "a", [])
    (task / "rows.csv").write_text("question,answer\nWhere?,1\nWhen?,\nWho?,0\n")
    text = (
        (task / "task.yaml")
        .read_text()
        .replace("rows.jsonl", "rows.csv")
        .replace("dataset_path: json", "dataset_path: csv")
    )
    (task / "task.yaml").write_text(text.replace("'{{choices}}'", "['Rome', 'Oslo']"))
    benchmark = Benchmark(setting(task, model))
    assert [row["gold"] for row in benchmark.scores(answers(benchmark, model))[1]] == [1, 0]
