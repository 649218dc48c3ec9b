"""The lm-eval task file of a hub data set asks for exactly the reference's content."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import yaml
from datasets import load_from_disk

from kdray.score.choices import lay_down_examples, lay_down_task
from kdray.spec.components import bind
from kdray.spec.errors import InputError
from kdray.spec.refs import parse_reference
from kdray.store import Outer


def test_a_hub_reference_gives_name_config_split_and_revision(tmp_path):
    commit = "0" * 40
    source = f"hf:somebody/arc-copy@{commit}#config=Mine&split=validation"
    params = bind("task", "arc_easy", {"source": source}, "task")
    lay_down_task("arc_easy", params, parse_reference(source), Outer(tmp_path / "store"), tmp_path / "task")
    task = yaml.safe_load((tmp_path / "task" / "task.yaml").read_text())
    assert task["dataset_path"] == "somebody/arc-copy"
    assert task["dataset_name"] == "Mine"
    assert task["dataset_kwargs"] == {"revision": commit}
    assert (task["test_split"], task["validation_split"]) == ("validation", None)
    assert task["include"].endswith("arc/arc_easy.yaml")


def test_a_table_in_a_zip_is_taken_out_of_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "arc.zip", "w") as archive:
        archive.writestr("rows.jsonl", '{"question": "Where?"}\n')
    params = bind("task", "arc_easy", {"source": f"file:{tmp_path / 'arc.zip'}"}, "task")
    lay_down_task("arc_easy", params, parse_reference(params["source"]), Outer(tmp_path / "store"), tmp_path / "task")
    task = yaml.safe_load((tmp_path / "task" / "task.yaml").read_text())
    assert task["dataset_path"] == "json"
    assert Path(task["dataset_kwargs"]["data_files"]["test"]).read_text() == '{"question": "Where?"}\n'


def test_examples_of_a_task_with_files_of_its_own_form_are_read_in_that_form(tmp_path):
    asked = "Q: How many are two?\n(A) one (B) two (C) three (D) four\nA: Well. The answer is (B)."
    (tmp_path / "shown.json").write_text(json.dumps({"sums": asked}))
    params = bind("task", "mmlu_bundled", {}, "task")
    ref = parse_reference(f"file:{tmp_path / 'shown.json'}")
    rows = load_from_disk(str(lay_down_examples("mmlu_bundled", params, ref, Outer(tmp_path / "store"), tmp_path / "task")))
    assert list(rows) == [{"subject": "sums", "question": "How many are two?", "choices": ["one", "two", "three", "four"], "answer": 1}]
    (tmp_path / "shown.json").write_text("{}")
    with pytest.raises(InputError, match=r"score\.tasks\.mmlu_bundled\.shots_source: no question in"):
        lay_down_examples("mmlu_bundled", params, ref, Outer(tmp_path / "store"), tmp_path / "other")
