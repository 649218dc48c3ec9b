"""The lm-eval task file of a hub data set asks for exactly the reference's content."""

from __future__ import annotations

import yaml

from kdray.score.choices import lay_down_task
from kdray.spec.components import bind
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
