"""`kdray why GRID` names what was edited, for every step that is made again and for no other."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest

from kdray.plan import identity
from kdray.plan.again import explained
from kdray.spec import InputError
from kdray.spec.components import Component
from kdray.spec.declare import Declared
from kdray.store import Store, io
from tests.conftest import Run, TinyGrid
from tests.plan.conftest import MakePlan, seal


def finish(plan: MakePlan, store: Store, changes: dict[str, object] | None = None) -> None:
    seal(store, *(step for step in plan(changes).steps() if step.state(store) != "done"))


def test_every_step_that_is_made_again_has_its_cause_in_one_line(plan: MakePlan, store: Store) -> None:
    finish(plan, store)
    deep = "point > soft_labels > teacher > lr: 0.001 -> 0.002"
    assert explained(plan({"teacher.tune.lr": 2e-3}), store) == [
        "teach teacher-lora: lr: 0.001 -> 0.002",
        "soften hidden: teacher > lr: 0.001 -> 0.002",
        "train lr0.0001-b2-a0.1-s0 and 1 more: soft_labels > teacher > lr: 0.001 -> 0.002",
        f"student lr0.0001-b2-a0.1-s0-s2 and 3 more: {deep}",
        # all held-out scores are measured on these soft labels, those of plain fine-tuning too
        "measure student-heldout_loss and 8 more: soft_labels > teacher > lr: 0.001 -> 0.002",
        "measure teacher-lora-heldout_loss: model > lr: 0.001 -> 0.002",
        "generate teacher-lora-heldout_answers-greedy and 1 more: model > lr: 0.001 -> 0.002",
        "measure teacher-lora-heldout_answers-greedy and 1 more: outputs > model > lr: 0.001 -> 0.002",
        f"generate lr0.0001-b2-a0.1-s0-s2-heldout_answers-greedy and 7 more: model > {deep}",
        f"measure lr0.0001-b2-a0.1-s0-s2-heldout_answers-greedy and 7 more: outputs > model > {deep}",
    ]


def test_what_stands_behind_several_inputs_is_one_cause_on_the_shortest_way(plan: MakePlan, store: Store) -> None:
    finish(plan, store)
    lines = explained(plan({"data.heldout": 3}), store, "lr0.001-b2-a0.1-s0")
    assert [line for line in lines if line.startswith("train")] == ["train lr0.001-b2-a0.1-s0: data > heldout: 2 -> 3"]
    assert all(line.count("heldout: 2 -> 3") == 1 for line in lines)


def test_the_nearest_of_several_earlier_ones_is_compared(plan: MakePlan, store: Store) -> None:
    finish(plan, store, {"train.warmup": 0.5, "train.clip": None})
    finish(plan, store, {"train.warmup": 0.1})
    train = plan({"train.warmup": 0.2}).points[0].train
    [line] = [line for line in explained(plan({"train.warmup": 0.2}), store) if line.startswith("train")]
    assert line == f"train {train.slug} and 3 more: warmup: 0.1 -> 0.2"


def test_of_equally_near_ones_the_newest_is_compared(plan: MakePlan, store: Store) -> None:
    for age, warmup in ((100, 0.3), (200, 0.1)):
        finish(plan, store, {"train.warmup": warmup})
        for point in plan({"train.warmup": warmup}).points:
            done = store.folder(point.train.key) / "DONE"
            os.utime(done, (done.stat().st_mtime - age,) * 2)
    [line] = [line for line in explained(plan({"train.warmup": 0.2}), store) if line.startswith("train")]
    assert line.endswith("warmup: 0.3 -> 0.2")


def test_new_points_are_made_for_the_first_time_and_unfinished_ones_are_no_earlier_artifact(
    plan: MakePlan, store: Store
) -> None:
    finish(plan, store)
    assert explained(plan({"axes.lr": [1e-3, 1e-4, 1e-5]}), store) == [
        "nothing will be made again",
        "made for the first time: 2 train, 4 student, 12 measure, 8 generate",
    ]
    shorter = plan({"train.steps": 3})
    train = shorter.points[0].train
    io.delete(store.folder(plan().points[0].train.key) / "DONE")
    lines = explained(shorter, store)
    assert not [line for line in lines if line.startswith(f"train {train.slug}")]
    assert lines[-1].startswith("made for the first time: 1 train, ")


def test_only_the_steps_of_a_point_are_told(plan: MakePlan, store: Store) -> None:
    finish(plan, store)
    changed = plan({"teacher.tune.lr": 2e-3})
    assert explained(changed, store, "lr0.001-b2-a0.1-s0")[:3] == [
        "teach teacher-lora: lr: 0.001 -> 0.002",
        "soften hidden: teacher > lr: 0.001 -> 0.002",
        "train lr0.001-b2-a0.1-s0: soft_labels > teacher > lr: 0.001 -> 0.002",
    ]
    hard = explained(changed, store, "lr0.001-b2-a0-s0")  # of plain fine-tuning only the held-out KL is taken again
    assert {line.split()[0] for line in hard} == {"teach", "soften", "measure"}


def test_where_nothing_is_missing_it_says_so(plan: MakePlan, store: Store) -> None:
    finish(plan, store)
    assert explained(plan(), store) == ["nothing will be made again"]
    assert explained(plan(), store, "lr0.001-b2-a0-s0") == ["nothing will be made again"]


def test_steps_without_an_id_are_counted(plan: MakePlan, store: Store) -> None:
    finish(plan, store)
    lines = explained(plan({"student.model": "hf:org/student"}), store)
    assert lines[0] == "nothing will be made again"
    assert lines[-1].startswith("not known before the first run has resolved the references: 1 model, ")


def test_a_component_of_another_version_is_named(plan: MakePlan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(plan, store)
    known = identity.component

    def newer(kind: type[Declared], name: str, where: str) -> Component[Any]:
        found = known(kind, name, where)
        later = dataclasses.replace(found.declared, version=found.declared.version + 1)
        return dataclasses.replace(found, declared=later) if name == "alpaca" else found

    monkeypatch.setattr(identity, "component", newer)
    old = plan().prepare.payload["params"]["template"]["version"] - 1  # type: ignore[union-attr, index]
    assert f"prepare rows: template.version: {old} -> {old + 1}" in explained(plan(), store)


def test_a_long_value_is_cut(plan: MakePlan, store: Store, tiny_grid: TinyGrid) -> None:
    finish(plan, store)
    tiny_grid.rows("rows.jsonl", [{"instruction": "a", "context": "", "response": "b"}] * 6)
    [line] = [line for line in explained(plan(), store) if line.startswith("prepare")]
    assert line.startswith("prepare rows: source.sha256: '")
    assert len(line) < 130


def test_wrong_input_is_one_line(plan: MakePlan, store: Store) -> None:
    with pytest.raises(InputError, match=r"runtime\.store: no store .*; run the grid first"):
        explained(plan(), store)
    finish(plan, store)
    with pytest.raises(InputError, match=r"POINT: no point 'lr0\.001-b2-a0-s1'; did you mean 'lr0\.001-b2-a0-s0'\?"):
        explained(plan(), store, "lr0.001-b2-a0-s1")


@pytest.mark.slow
def test_the_command_takes_a_grid_a_point_or_two_ids(
    run: Run, tiny_grid: TinyGrid, plan: MakePlan, store: Store
) -> None:
    path = tiny_grid()
    code, _, stderr = run("why", path)
    assert (code, stderr.count("\n")) == (2, 1)
    assert "no store" in stderr
    finish(plan, store)
    assert run("why", path) == (0, "nothing will be made again\n", "")
    edited = tiny_grid({"train.steps": 3})
    code, stdout, _ = run("why", edited, "lr0.001-b2-a0-s0")
    assert code == 0
    assert "train lr0.001-b2-a0-s0: keep: " in stdout
    code, _, stderr = run("why", edited, "lr1-b2-a0-s0")
    assert (code, stderr.count("\n")) == (2, 1)
    assert "did you mean" in stderr
    code, _, stderr = run("why", plan().prepare.id)
    assert (code, stderr) == (2, f"error ids: only {plan().prepare.id}; give two artifacts' ids, or a grid file\n")
