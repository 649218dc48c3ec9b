"""The steps of a grid: each once, inputs first, with the state that the store shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kdray.plan import position_slug, scores
from kdray.spec import InputError
from kdray.store import Locks, Store
from tests.conftest import ABSENT, TinyGrid, tree_of
from tests.plan.conftest import MakePlan, seal


def test_every_step_comes_once_and_after_its_inputs(plan: MakePlan) -> None:
    steps = list(plan().steps())
    assert len({step.id for step in steps}) == len({step.key for step in steps}) == len(steps)
    place = {step.id: i for i, step in enumerate(steps)}
    for step in steps:
        assert all(place[needed.id] < place[step.id] for needed in step.inputs.steps)
    assert Counter(step.kind for step in steps) == {
        "model": 2,
        "prepare": 1,
        "teach": 1,
        "soften": 1,
        "train": 4,
        "student": 8,
        "generate": 20,  # two tasks on eight exports, the student and the teacher
        "measure": 30,
    }


def test_a_model_that_is_student_and_teacher_is_one_step(plan: MakePlan, tiny_grid: TinyGrid) -> None:
    made = plan({"teacher.model": f"file:{tiny_grid.folder}/student", "teacher.tune": None})
    assert made.models["teacher"].id == made.models["student"].id
    assert [step.kind for step in made.steps()].count("model") == 1


def test_a_cut_student_keeps_the_whole_models_tokenizer(plan: MakePlan) -> None:
    made = plan({"student.drop_layers": [1, 3]})
    whole = made.models["student"].inputs.model
    assert made.models["student"].slug == "student-without1to2"
    assert made.prepare.inputs.tokenizer is whole
    assert made.points[0].train.inputs.student is made.models["student"]


def test_only_the_last_checkpoint_is_scored_if_the_grid_says_so(plan: MakePlan) -> None:
    scored = {score.position for score in plan({"score.checkpoints": "last"}).scores if score.position is not None}
    assert scored == {4.0}
    assert {score.position for score in plan().scores} == {None, 2.0, 4.0}


@pytest.mark.parametrize(
    ("train", "slugs"), [({"epochs": 1.5, "keep": [0.5, 1]}, ["e0.5", "e1", "e1.5"]), ({"steps": 200}, ["s200"])]
)
def test_a_checkpoint_is_named_by_its_position(train: dict[str, object], slugs: list[str], plan: MakePlan) -> None:
    made = plan({"train": train})
    assert [position_slug(made.grid.train, position) for position in made.points[0].exports] == slugs
    assert [export.slug for export in made.points[0].exports.values()] == [
        f"lr0.0001-b2-a0-s0-{slug}" for slug in slugs
    ]


def test_slugs_can_be_names_of_folders(plan: MakePlan, tiny_grid: TinyGrid) -> None:
    tiny_grid.model("My Model (v2)")
    for step in plan({"student.model": f"file:{tiny_grid.folder}/My Model (v2)/"}).steps():
        assert set(step.slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
        assert step.slug[0].isalnum()


def test_folders_have_names_that_file_systems_take_whatever_a_model_is_called(
    plan: MakePlan, tiny_grid: TinyGrid
) -> None:
    tiny_grid.model("x" * 240)
    made = plan({"student.model": f"file:HERE/{'x' * 240}"})
    assert {len(f"{step.slug}-{step.id}") for step in made.steps() if step.slug.startswith("x")} == {213}


def test_states_follow_the_store(plan: MakePlan, store: Store) -> None:
    made = plan()
    assert {step.state(store) for step in made.steps()} == {"missing"}
    seal(store, made.prepare)
    folder = store.begin(made.points[0].train.key, made.points[0].train.payload or {}).folder
    with Locks() as locks:
        assert locks.try_acquire(folder)
        states = {step.key: step.state(store) for step in made.steps()}
        assert (states.pop(made.prepare.key), states.pop(made.points[0].train.key)) == ("done", "running")
        assert set(states.values()) == {"missing"}
    assert made.points[0].train.state(store) == "missing"


def test_what_is_unresolved_is_so_for_all_that_needs_it_and_for_nothing_else(plan: MakePlan, store: Store) -> None:
    made = plan({"teacher.model": "hf:org/teacher"})
    unresolved = {step.kind for step in made.steps() if step.state(store) == "unresolved"}
    assert unresolved == {"model", "teach", "soften", "train", "student", "generate", "measure"}
    assert made.models["student"].id is not None
    assert made.prepare.id is not None
    for point in made.points:
        assert (point.train.id is None) == (point.point.alpha > 0)
        assert all((export.id is None) == (point.point.alpha > 0) for export in point.exports.values())
    resolved = [step for step in plan({"student.model": "hf:org/student"}).steps() if step.id is not None]
    assert [(step.kind, step.slug) for step in resolved] == [("model", "teacher")]


def test_a_plan_is_the_same_once_the_lock_file_knows_the_answer(plan: MakePlan, tiny_grid: TinyGrid) -> None:
    commit = "0123456789" * 4
    pinned = plan({"teacher.model": f"hf:org/teacher@{commit}"})
    (tiny_grid.folder / "store.lock.json").write_text(json.dumps({"hf:org/teacher": commit}))
    assert [step.id for step in plan({"teacher.model": "hf:org/teacher"}).steps()] == [
        step.id for step in pinned.steps()
    ]


def test_a_file_that_is_not_there_is_named(plan: MakePlan) -> None:
    with pytest.raises(
        InputError, match=r"^score\.tasks\.0\.source: no file or folder nowhere\.jsonl; paths are read from /"
    ):
        plan({"score.tasks": [{"name": "xsum", "source": "file:nowhere.jsonl"}]})


@pytest.mark.parametrize("source", ["", "xsum.jsonl", "http://x"])
def test_a_tasks_source_is_a_reference_too(source: str, plan: MakePlan) -> None:
    with pytest.raises(InputError, match=r"^score\.tasks\.0\.source: .*has no known scheme"):
        plan({"score.tasks": [{"name": "xsum", "source": source}]})


def test_planning_writes_nothing_and_needs_nothing_heavy(tiny_grid: TinyGrid) -> None:
    path = tiny_grid()
    before = tree_of(tiny_grid.folder)
    code = (
        "import sys; from kdray.check.checks import check_grid; from kdray.plan import make_plan; from kdray.spec"
        " import load_grid;from kdray.store import Outer, Store; grid = load_grid(sys.argv[1]); outer ="
        " Outer(Store(grid.runtime.store).root);check_grid(grid, outer, offline=True); [step.state(Store(outer.root))"
        " for step in make_plan(grid, outer).steps()];heavy = {'torch', 'ray', 'transformers', 'mlflow', 'datasets',"
        " 'numpy', 'pyarrow', 'huggingface_hub'};print(sorted(heavy.intersection(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
    assert tree_of(tiny_grid.folder) == before


def test_the_shipped_quickstart_is_wholly_resolved(tmp_path: Path) -> None:
    from kdray.plan import make_plan
    from kdray.spec import load_grid
    from kdray.store import Outer
    from tests.conftest import ROOT

    made = make_plan(load_grid(ROOT / "grids" / "quickstart.yaml"), Outer(tmp_path / "store"))
    assert None not in [step.id for step in made.steps()]


def test_the_answers_are_one_step_and_soft_labels_are_made_on_the_text_that_is_trained_on(plan: MakePlan) -> None:
    made = plan({"axes.labels": ["gold", "teacher", "both"]})
    answers, both = [step for step in made.steps() if step.kind == "augment"]
    assert [answers.slug, both.slug] == ["rows-teacher", "rows-both"]
    assert answers.inputs.named == {"teacher": made.models["teacher"], "data": made.prepare}
    assert both.inputs.named == {"data": made.prepare, "answers": answers}
    text = {"gold": made.prepare, "teacher": answers, "both": both}
    for point in made.points:
        inputs = point.train.inputs
        assert inputs.data is text[point.point.labels]
        assert bool(inputs.soft_labels) == (point.point.alpha > 0)
        assert not inputs.soft_labels or inputs.soft_labels.inputs.data is inputs.data
    assert len({point.train.id for point in made.points}) == len(made.points) == 12


def test_a_teacher_beside_the_student_reads_the_text_that_is_trained_on(plan: MakePlan) -> None:
    made = plan({"axes.labels": ["teacher"], "axes.alpha": [1], "soft_labels.form": "online"})
    kinds = [step.kind for step in made.steps()]
    assert (kinds.count("augment"), kinds.count("soften")) == (1, 0)
    inputs = made.points[0].train.inputs
    assert (inputs.data.kind, inputs.teacher) == ("augment", made.models["teacher"])


@pytest.mark.parametrize(
    ("labels", "alphas", "tasks", "augmented", "softened"),
    [
        (["gold"], [0], ["heldout_loss"], [], ["hidden"]),
        (["gold"], [0], ["heldout_answers"], [], []),
        (["teacher"], [0], ["heldout_answers"], ["rows-teacher"], []),
        (["teacher"], [1], ["heldout_answers"], ["rows-teacher"], ["hidden-rows-teacher"]),
        (["teacher"], [1], ["heldout_loss"], ["rows-teacher"], ["hidden-rows-teacher", "hidden"]),
        (["both"], [0, 1], ["heldout_answers"], ["rows-teacher", "rows-both"], ["hidden-rows-both"]),
        (["gold", "teacher"], [1], ["heldout_answers"], ["rows-teacher"], ["hidden", "hidden-rows-teacher"]),
    ],
)
def test_only_what_some_point_or_task_uses_is_made(
    labels: list[str], alphas: list[float], tasks: list[str], augmented: list[str], softened: list[str], plan: MakePlan
) -> None:
    made = plan({"axes.labels": labels, "axes.alpha": alphas, "score.tasks": tasks})
    assert [step.slug for step in made.steps() if step.kind == "augment"] == augmented
    assert [step.slug for step in made.steps() if step.kind == "soften"] == softened


def test_heldout_scores_are_on_the_original_rows_whatever_a_point_trained_on(plan: MakePlan) -> None:
    made = plan({"axes.labels": ["gold", "teacher", "both"]})
    for score in made.scores:
        step = score.generate or score.measure
        if score.task.name.startswith("heldout"):
            assert step.inputs.data is made.prepare
        if score.task.name == "heldout_loss":
            assert step.inputs.soft_labels is made.heldout_labels.soft_labels
            assert step.inputs.soft_labels.inputs.data is made.prepare


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"augment.max_new_tokens": 9}, False),
        ({"augment.batch": 3}, False),
        ({"teacher.tune.lr": 2e-3}, False),
        ({"data.limit": 5}, False),
        ({"soft_labels.dtype": "float32"}, True),
        ({"axes.labels": ["both"]}, True),
        ({"train.steps": 9}, True),
    ],
)
def test_answers_are_made_again_only_if_they_may_differ(changes: dict[str, object], same: bool, plan: MakePlan) -> None:
    ids = [
        next(step.id for step in made.steps() if step.slug == "rows-teacher")
        for made in (plan({"axes.labels": ["teacher"]}), plan({"axes.labels": ["teacher"], **changes}))
    ]
    assert (ids[0] == ids[1]) == same


TEACHERS: dict[str, Any] = {
    "teacher": ABSENT,
    "teachers": {
        "big": {"model": "file:HERE/teacher"},
        "small": {"model": "file:HERE/student", "tune": {"lr": 1e-3, "steps": 2}},
    },
}


def test_teachers_are_an_axis_of_all_points_that_use_one(plan: MakePlan) -> None:
    made = plan(TEACHERS | {"axes.lr": [1e-3], "axes.alpha": [0, 1], "axes.labels": ["gold", "teacher"]})
    assert [(p.point.labels, p.point.alpha, p.point.teacher) for p in made.points] == [
        ("gold", 0, ""),
        ("gold", 1, "big"),
        ("gold", 1, "small"),
        ("teacher", 0, "big"),
        ("teacher", 1, "big"),
        ("teacher", 0, "small"),
        ("teacher", 1, "small"),
    ]
    for point in made.points[1:]:
        inputs, teacher = point.train.inputs, made.models[point.point.teacher]
        if point.point.labels == "teacher":
            assert inputs.data.inputs.teacher is teacher
        if point.point.alpha:
            assert inputs.soft_labels.inputs.teacher is teacher
    assert {score.subject for score in made.scores if isinstance(score.subject, str)} == {"student", "big", "small"}
    losses = [score.measure for score in made.scores if score.task.name == "heldout_loss"]
    assert {step.inputs.soft_labels.inputs.teacher.slug for step in losses} == {made.models["big"].slug}, (
        "one yardstick for all"
    )


def test_a_teacher_by_name_is_the_teacher_of_a_grid_with_one(plan: MakePlan) -> None:
    alone = plan({"teacher": {"model": "file:HERE/teacher"}, "axes.alpha": [0, 1]})
    named = plan(TEACHERS | {"axes.alpha": [0, 1], "axes.teacher": ["big"]})
    assert [point.train.id for point in named.points] == [point.train.id for point in alone.points]


def test_an_ensemble_reads_the_soft_labels_of_its_members(plan: MakePlan) -> None:
    grid = TEACHERS | {"axes.alpha": [1], "axes.teacher": ["big", "mix"], "ensembles": {"mix": {"big": 3, "small": 1}}}
    made = plan(grid)
    alone, mixed = (next(p.train for p in made.points if p.point.teacher == name) for name in ("big", "mix"))
    assert mixed.params["weights"] == [0.75, 0.25]
    assert mixed.inputs.soft_labels[0] is alone.inputs.soft_labels
    assert mixed.inputs.soft_labels[1].inputs.teacher is made.models["small"]
    other = plan(grid | {"ensembles": {"mix": {"big": 6, "small": 2}}})
    assert mixed.id in {point.train.id for point in other.points}, "weights are relative"
    assert mixed.id not in {
        point.train.id for point in plan(grid | {"ensembles": {"mix": {"big": 1, "small": 1}}}).points
    }


@pytest.mark.parametrize(
    ("changes", "points"),
    [
        ({"teachers": TEACHERS["teachers"] | {"twin": {"model": "file:HERE/teacher"}}}, ("big", "twin")),
        ({"ensembles": {"mix": {"big": 1, "small": 1}, "same": {"big": 2, "small": 2}}}, ("mix", "same")),
    ],
)
def test_two_points_that_are_one_training_are_refused(
    changes: dict[str, object], points: tuple[str, str], plan: MakePlan
) -> None:
    slugs = [f"lr0.001-b2-a1-s0-{name}" for name in points]
    grid = TEACHERS | {"axes.lr": [1e-3], "axes.alpha": [0, 1], **changes}
    with pytest.raises(
        InputError,
        match=f"^teachers: the points {slugs[0]} and {slugs[1]} are the same training; name every model once",
    ):
        plan(grid)
    assert len(plan(grid | {"axes.teacher": [points[1], "small"]}).points) == 3


def test_an_ensemble_of_teachers_beside_the_student(plan: MakePlan) -> None:
    grid = TEACHERS | {"axes.alpha": [1], "axes.teacher": ["mix"], "ensembles": {"mix": {"big": 1, "small": 1}}}
    point, *_ = plan(grid | {"soft_labels.form": "online"}).points
    assert [teacher.kind for teacher in point.train.inputs.sources] == ["model", "teach"]


def test_what_a_task_asks_is_worked_out_once_however_many_points_there_are(
    plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()

    def counted(name: str) -> Any:
        own = getattr(scores, name)
        return lambda *arguments: asked.update([name]) or own(*arguments)

    for name in ("metrics_of", "decoding_label", "references", "guided_by_grids_lens", "named"):
        monkeypatch.setattr(scores, name, counted(name))
    plan({"axes.lr": [1e-3]})
    few = dict(asked)
    asked.clear()
    assert len(plan({"axes.lr": [1e-3, 1e-4, 1e-5]}).points) == 6
    assert dict(asked) == few
    assert few["metrics_of"] == 2


def test_a_state_takes_few_looks_at_the_disk(plan: MakePlan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = list(plan({"axes.seed": list(range(5))}).steps())
    seal(store, *steps[: len(steps) // 2])
    looks: list[object] = []
    own = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: looks.append(path) or own(path, **options))
    assert {step.state(store) for step in steps} == {"done", "missing"}
    assert len(looks) <= 4 * len(steps)
