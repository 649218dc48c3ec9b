"""The lm-eval task file of a data set asks for exactly the reference's content, on the hub or here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_from_disk

from kdray.score.benchmark import Benchmark, Setting
from kdray.score.choices import lay_down_examples, lay_down_task, own_name
from kdray.spec import declare
from kdray.spec.components import bind
from kdray.spec.errors import InputError
from kdray.spec.refs import parse_reference
from kdray.store import Outer
from tests.tiny import write_model

CHOICES = {"text": ["in Rome", "in Oslo", "Lima", "no"], "label": ["A", "B", "C", "D"]}
ARC = [
    {"question": f"Where does {name} live?", "choices": CHOICES, "answerKey": key}
    for name, key in (("Ada", "A"), ("Ben", "B"))
]


def test_a_hub_reference_gives_name_config_split_and_revision(tmp_path):
    commit = "0" * 40
    source = f"hf:somebody/arc-copy@{commit}#config=Mine&split=validation"
    params = bind(declare.Task, "arc_easy", {"source": source}, "task")
    lay_down_task("arc_easy", params, parse_reference(source), Outer(tmp_path / "store"), tmp_path / "task")
    task = yaml.safe_load((tmp_path / "task" / "task.yaml").read_text())
    assert task["dataset_path"] == "somebody/arc-copy"
    assert task["dataset_name"] == "Mine"
    assert task["dataset_kwargs"] == {"revision": commit}
    assert (task["test_split"], task["validation_split"]) == ("validation", None)
    assert task["include"].endswith("arc/arc_easy.yaml")


def test_examples_of_a_task_with_files_of_its_own_form_are_read_in_that_form(tmp_path):
    asked = "Q: How many are two?\n(A) one (B) two (C) three (D) four\nA: Well. The answer is (B)."
    (tmp_path / "shown.json").write_text(json.dumps({"sums": asked}))
    params = bind(declare.Task, "mmlu_bundled", {}, "task")
    ref = parse_reference(f"file:{tmp_path / 'shown.json'}")
    rows = load_from_disk(
        str(lay_down_examples("mmlu_bundled", params, ref, Outer(tmp_path / "store"), tmp_path / "task"))
    )
    assert list(rows) == [
        {"subject": "sums", "question": "How many are two?", "choices": ["one", "two", "three", "four"], "answer": 1}
    ]
    with pytest.raises(InputError, match=r"mmlu_bundled\.shots_source: .*shown\.json has changed since the run began"):
        lay_down_examples(
            "mmlu_bundled", params, ref, Outer(tmp_path / "store"), tmp_path / "changed", {"sha256": "0" * 64}
        )
    (tmp_path / "shown.json").write_text("{}")
    with pytest.raises(InputError, match=r"score\.tasks\.mmlu_bundled\.shots_source: .* has no questions"):
        lay_down_examples("mmlu_bundled", params, ref, Outer(tmp_path / "store"), tmp_path / "other")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


def asked(
    task: str, source: Path, folder: Path, model: Path, identity: dict[str, Any] | None = None
) -> list[tuple[str, str]]:
    """What lm-eval makes of a local file: contexts and answers."""
    params, outer = bind(declare.Task, task, {"source": f"file:{source}"}, "task"), Outer(folder / "store")
    name = lay_down_task(task, params, parse_reference(f"file:{source}"), outer, folder / "task", identity)
    assert name == own_name(task)
    setting = Setting(name, str(folder / "task"), 0, None, False, str(model), 4, "hflm")
    return [request.args for request in Benchmark(setting).requests]


@pytest.mark.parametrize("name", ["arc[1].jsonl", "arc?.json", "*.jsonl", "a::b.jsonl", "ARC.JSONL", "hf:a@b.jsonl"])
def test_a_local_file_is_just_that_file(name, tmp_path, model):
    """Whatever it is called, and whatever its folder and the store are; lm-eval itself takes both for patterns."""
    folder = tmp_path / "st[o]re ::*"
    folder.mkdir()
    lines = [json.dumps(row) for row in ARC]
    (folder / name).write_text(
        f"\ufeff[{','.join(lines)}]" if name.endswith(".json") else "\n".join(["\ufeff" + lines[0], *lines[1:]])
    )
    for other in ("arc1.jsonl", "arcx.json", "other.jsonl"):
        (folder / other).write_text(json.dumps(ARC[0] | {"question": "Another file's?"}))
    made = asked("arc_easy", folder / name, folder, model)
    assert made[0] == ("Question: Where does Ada live?\nAnswer:", " in Rome")
    assert [context for context, _ in made[::4]] == [f"Question: {row['question']}\nAnswer:" for row in ARC]


def test_a_changed_file_is_read_anew_and_one_that_changes_in_between_is_refused(tmp_path, model):
    (tmp_path / "arc.jsonl").write_text(json.dumps(ARC[0]))
    planned = Outer(tmp_path / "store").identify(parse_reference(f"file:{tmp_path / 'arc.jsonl'}"))
    assert asked("arc_easy", tmp_path / "arc.jsonl", tmp_path, model, planned)[0][0].startswith(
        "Question: Where does Ada"
    )
    (tmp_path / "arc.jsonl").write_text(json.dumps(ARC[1]))
    assert asked("arc_easy", tmp_path / "arc.jsonl", tmp_path, model)[0][0].startswith("Question: Where does Ben")
    (tmp_path / "arc.jsonl").write_text(json.dumps(ARC[1] | {"question": "Who?"}))
    with pytest.raises(
        InputError, match=r"^score\.tasks\.arc_easy\.source: .*arc\.jsonl has changed since the run began"
    ):
        asked(
            "arc_easy",
            tmp_path / "arc.jsonl",
            tmp_path,
            model,
            Outer(tmp_path / "other").identify(parse_reference("file:" + __file__)),
        )


def test_questions_in_a_tasks_own_format_reach_lm_eval(tmp_path, model):
    text = "Q: Why?\n(A) a (B) b (C) c (D) d\nA: So. The answer is (B)."
    (tmp_path / "questions.json").write_text(json.dumps({"law": text, "art": text.replace("Why", "Who")}, indent=1))
    made = asked("mmlu_bundled", tmp_path / "questions.json", tmp_path, model)
    assert made[0] == ("Question: Why?\nAnswer:", " a")
    assert made[7] == ("Question: Who?\nAnswer:", " d")


def test_labels_of_a_csv_are_numbers_and_texts_stay_as_they_are(tmp_path, model):
    """piqa chooses by the number in `label`; its goals and solutions are texts whatever they look like."""
    (tmp_path / "piqa.csv").write_text("goal,sol1,sol2,label\n1.50,True,007,1\nnull,N/A,None,0\n")
    made = asked("lm_eval:piqa", tmp_path / "piqa.csv", tmp_path, model)
    assert made == [
        ("Question: 1.50\nAnswer:", " True"), ("Question: 1.50\nAnswer:", " 007"),
        ("Question: null\nAnswer:", " N/A"), ("Question: null\nAnswer:", " None"),
    ]  # fmt: skip


def test_a_column_of_several_kinds_keeps_each_of_them(tmp_path, model):
    """As JSON kinds are told apart: a text of digits does not become a number, nor does a text lose its quotes."""
    kinds = (('"a"', 1), (5, "1"), (None, {"b": 2.5}))
    rows = [{"goal": goal, "sol1": "7", "sol2": "x", "label": 0, "more": more} for goal, more in kinds]
    (tmp_path / "piqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = asked("lm_eval:piqa", tmp_path / "piqa.jsonl", tmp_path, model)
    assert [context for context, _ in made[::2]] == ['Question: "a"\nAnswer:', "Question: 5\nAnswer:"], (
        "a null asks nothing"
    )
    assert [answer for _, answer in made[::2]] == [" 7"] * 2


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read (Expecting"),
        ("[1]", "cannot be read ('list' object"),
        ('{"law": "none"}', "has no questions"),
    ],
)
def test_a_file_that_is_not_in_a_tasks_own_format_is_one_line(content, said, tmp_path, model):
    (tmp_path / "questions.json").write_text(content)
    with pytest.raises(
        InputError, match=re.escape(f"score.tasks.mmlu_bundled.source: file:{tmp_path / 'questions.json'} {said}")
    ):
        asked("mmlu_bundled", tmp_path / "questions.json", tmp_path, model)
