"""What changes an artifact's id: everything that changes its content, and nothing else."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

import pytest

from kdray.plan import Plan
from kdray.spec import components as spec
from kdray.spec import declare
from kdray.spec.declare import Declared
from tests.conftest import ABSENT, TinyGrid
from tests.plan.conftest import MakePlan

# By these names the tests speak of steps. The last three are scores of the untrained student.
POINTS = {"sft", "kd"}
LABELS = {"soften", "kd", "loss"}  # `loss` includes the divergence from the teacher
TEACHING = {"teach", *LABELS}
SCORES = {"loss", "answers", "xsum"}
DATA = {"prepare", *TEACHING, *POINTS, "answers"}
ALL = {"student", "teacher", *DATA, "xsum"}

SAME: dict[str, Any] = {
    "runtime.workers": 4,
    "runtime.accelerator": "H100",
    "runtime.micro_batch": 1,
    "runtime.checkpoint_minutes": 3,
    "runtime.checkpoint_every": 7,
    "runtime.mlflow": "http://example.org",
    "runtime.drop_exports": "scored",
    "runtime.store": "elsewhere",
    "search": {"name": "asha", "reduction": 2},
    "name": "other",
    "question": "What?",
    "family": "other",
    "report.primary": "xsum/rougeL",
    "report.checkpoint": "best_heldout",
    "report.margin": {},
    "score.references": ["student"],
    "axes.lr": [1e-3, 1e-4, 1e-5],
    "axes.batch": [2, 4],
    "axes.alpha": [0, 0.1, 1],
    "axes.seed": [0, 1],
    "axes.labels": ["gold", "teacher", "both"],
    "augment.max_new_tokens": 9,  # of no point here
    "include": [{"lr": 1e-2, "batch": 1, "alpha": 3}],
    "data.template": {"name": "alpaca"},
    "train.schedule": {"name": "cosine", "floor": 0},
    "train.export": {"dtype": "float32", "adapters": False},
}
DIFFERENT: dict[str, tuple[dict[str, Any], set[str]]] = {
    "steps": ({"train.steps": 5}, POINTS),
    "epochs": ({"train": {"epochs": 4}}, POINTS),
    "kept checkpoints": ({"train.keep": [1, 3]}, POINTS),
    "dtype of checkpoints": ({"train.export.dtype": "bfloat16"}, POINTS),
    "adapters alone": ({"train.method": "lora", "train.export.adapters": True}, POINTS),
    "schedule": ({"train.schedule": "constant"}, POINTS),
    "schedule's parameter": ({"train.schedule": {"name": "cosine", "floor": 0.1}}, POINTS),
    "warm-up": ({"train.warmup": 0.1}, POINTS),
    "weight decay": ({"train.weight_decay": 0.0}, POINTS),
    "clip": ({"train.clip": None}, POINTS),
    "dtype": ({"train.dtype": "bfloat16"}, POINTS),
    "packing": ({"train.packing": False}, POINTS),
    "heldout": ({"data.heldout": 3}, DATA),
    "test": ({"data.test": 1}, DATA),
    "limit": ({"data.limit": 5}, DATA),
    "max_prompt": ({"data.max_prompt": 100}, DATA),
    "max_length": ({"data.max_length": 300}, DATA),
    "recipe": ({"data.recipe": {"name": "columns", "response": "response"}}, DATA),
    "template": ({"data.template": "chat"}, DATA | {"xsum"}),
    "template's parameter": ({"data.template": {"name": "alpaca", "bos": True}}, DATA | {"xsum"}),
    "teacher's layers": ({"teacher.drop_layers": [0, 1]}, {"teacher", *TEACHING}),
    "teacher's method": ({"teacher.tune.method": "full"}, TEACHING),
    "teacher's lr": ({"teacher.tune.lr": 2e-3}, TEACHING),
    "teacher's length": ({"teacher.tune.steps": 3}, TEACHING),
    "teacher's batch": ({"teacher.tune.batch": 2}, TEACHING),
    "teacher's seed": ({"teacher.tune.seed": 1}, TEACHING),
    "teacher's rank": ({"teacher.tune.rank": 4}, TEACHING),
    "teacher's dtype": ({"teacher.tune.dtype": "bfloat16"}, TEACHING),
    "teacher's packing": ({"teacher.tune.packing": False}, TEACHING),
    "teacher as it is": ({"teacher.tune": ABSENT}, TEACHING),
    "labels' dtype": ({"soft_labels.dtype": "float32"}, LABELS),
    "labels' batch": ({"soft_labels.batch": 4}, LABELS),
    "labels' form": ({"soft_labels.form": "logits"}, LABELS),
    "labels' entries": ({"soft_labels": {"form": "topk", "k": 8}}, LABELS),
    "labels' compute": ({"soft_labels.compute": "bfloat16"}, LABELS),
    "a quantised teacher": ({"soft_labels.quantise": "4bit"}, LABELS),
    "labels' place": ({"soft_labels.form": "online"}, LABELS),
    "objective's loss": ({"objective.loss": "reverse_kl"}, {"kd"}),
    "objective's temperature": ({"objective.temperature": 2}, {"kd"}),
    "objective's weighting": ({"objective.weighting": "convex"}, {"kd"}),
    "student's layers": ({"student.drop_layers": [0, 1]}, {"student", *POINTS, *SCORES}),
    "scoring dtype": ({"score.dtype": "bfloat16"}, SCORES),
    "scoring batch": ({"score.batch": 4}, SCORES),
}


def ids(plan: Plan) -> dict[str, Any]:
    """The ids of the steps that the tests speak of."""
    scores = {score.task.name: score.generate or score.measure for score in plan.scores if score.subject == "student"}
    labeller = plan.models["teacher"]
    tuned = labeller.kind == "teach"
    found = {
        "student": plan.models["student"],
        "teacher": labeller.inputs.student if tuned else labeller,
        "prepare": plan.prepare,
    }
    found |= {"teach": labeller if tuned else None, "soften": plan.heldout_labels.soft_labels}
    found |= {"loss": scores["heldout_loss"], "answers": scores["heldout_answers"]}
    found |= {"xsum": scores["xsum"]} if "xsum" in scores else {}
    points = {
        (p.point.lr, p.point.batch, p.point.alpha, p.point.labels): p.train for p in plan.points if p.point.seed == 0
    }
    found |= {"sft": points[1e-3, 2, 0, "gold"], "kd": points[1e-3, 2, 0.1, "gold"]}
    return {name: step.id if step else None for name, step in found.items()}


def changed(one: Plan, other: Plan) -> set[str]:
    before, after = ids(one), ids(other)
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize("where", SAME)
def test_an_id_does_not_depend_on_how_or_beside_what_it_is_made(where: str, plan: MakePlan) -> None:
    assert changed(plan(), plan({where: SAME[where]})) == set()


@pytest.mark.parametrize(
    ("changes", "affected"), DIFFERENT.values(), ids=[name.replace(" ", "-") for name in DIFFERENT]
)
def test_an_id_depends_on_what_changes_the_content_and_so_do_those_below(
    changes: dict[str, Any], affected: set[str], plan: MakePlan
) -> None:
    assert changed(plan(), plan(changes)) == affected


@pytest.mark.parametrize(
    ("name", "file", "affected"),
    [
        ("student", "model.safetensors", ALL - {"teacher"}),
        ("student", "tokenizer.json", ALL - {"teacher"}),
        ("teacher", "model.safetensors", {"teacher", *TEACHING}),
        ("rows.jsonl", "", DATA),
        ("xsum.jsonl", "", {"xsum"}),
    ],
)
def test_an_id_depends_on_the_content_of_outer_files(
    name: str, file: str, affected: set[str], plan: MakePlan, tiny_grid: TinyGrid
) -> None:
    before = plan()
    path = tiny_grid.folder / name / file
    path.write_text(path.read_text().replace("a", "@") + " ")
    assert changed(before, plan()) == affected


def test_an_id_does_not_depend_on_where_outer_files_lie(plan: MakePlan, tiny_grid: TinyGrid) -> None:
    before = plan()
    here = tiny_grid.folder
    for name in ("student", "teacher", "rows.jsonl", "xsum.jsonl"):
        (here / "moved").mkdir(exist_ok=True)
        shutil.move(here / name, here / "moved" / f"my-{name}")
    moved = {
        "student.model": f"file:{here}/moved/my-student",
        "teacher.model": f"file:{here}/moved/../moved/my-teacher/",
        "data.source": f"file:{here}/moved/my-rows.jsonl",
        "score.tasks": [
            "heldout_loss",
            "heldout_answers",
            {"name": "xsum", "source": f"file:{here}/moved/my-xsum.jsonl"},
        ],
    }
    assert changed(before, plan(moved)) == set()


def test_an_id_does_not_depend_on_which_checkpoint_is_reported(plan: MakePlan) -> None:
    assert changed(plan(), plan({"report.checkpoint": "best_answers"})) == set()


def test_without_a_rank_to_speak_of_it_is_not_in_the_id(plan: MakePlan) -> None:
    full = {"teacher.tune.method": "full"}
    assert changed(plan(full), plan({**full, "teacher.tune.rank": 3})) == set()


@pytest.mark.parametrize("task", ["xsum", "heldout_answers"])
def test_a_tasks_parameter_changes_that_task_alone(task: str, plan: MakePlan, tiny_grid: TinyGrid) -> None:
    xsum = {"name": "xsum", "source": f"file:{tiny_grid.folder}/xsum.jsonl"}
    tasks = {"heldout_loss": {"name": "heldout_loss"}, "heldout_answers": {"name": "heldout_answers"}, "xsum": xsum}
    tasks[task] = {**tasks[task], "limit": 3}
    assert changed(plan(), plan({"score.tasks": list(tasks.values())})) == {"xsum" if task == "xsum" else "answers"}


@pytest.mark.parametrize(
    "written", [{}, {"stemmer": True, "sentences": "lines"}, {"stemmer": False}, {"sentences": "periods"}]
)
def test_what_rouge_learned_later_moves_no_measurement_that_does_not_use_it(
    written: dict[str, Any], plan: MakePlan
) -> None:
    """Scores of before have the id of a `rouge` that knew `tokenizer` alone."""

    def measured(made: Plan) -> list[Any]:
        return [score.measure for score in made.scores if score.task.name == "heldout_answers"]

    before, after = measured(plan()), measured(plan({"score.metrics": [{"name": "rouge", **written}]}))
    assert [step.params["metrics"][0]["params"] for step in before] == [{"tokenizer": "default"}] * len(before)
    same = written in ({}, {"stemmer": True, "sentences": "lines"})
    assert [one.id == other.id for one, other in zip(before, after, strict=True)] == [same] * len(before)


def test_every_point_has_an_id_of_its_own(plan: MakePlan) -> None:
    made = plan({"axes.lr": [1e-3, 1e-4], "axes.batch": [1, 2], "axes.alpha": [0, 0.1, 1], "axes.seed": [0, 1]})
    exports = [export.id for point in made.points for export in point.exports.values()]
    assert len({point.train.id for point in made.points}) == len(made.points) == 24
    assert len(set(exports)) == len(exports) == 48


@pytest.mark.parametrize("number", [1, 1.0])
def test_a_whole_number_is_the_same_point_however_it_is_written(number: float, plan: MakePlan) -> None:
    assert plan({"axes.alpha": [number]}).points[0].train.id == plan({"axes.alpha": [1]}).points[0].train.id


def test_plain_fine_tuning_knows_nothing_of_the_teacher(plan: MakePlan) -> None:
    made = plan({"axes.alpha": [0, 0.1]})
    for point in made.points:
        assert set(point.train.inputs.named) == {"student", "data"} | ({"soft_labels"} if point.point.alpha else set())
    alone = plan({"teacher": ABSENT, "axes.alpha": [0], "score.references": ["student"]})
    assert [p.train.id for p in alone.points] == [p.train.id for p in made.points if p.point.alpha == 0]
    assert (alone.heldout_labels.sources, list(alone.models)) == ((), ["student"])


def test_chosen_rows_are_points_of_their_own_and_leave_the_others_alone(plan: MakePlan) -> None:
    small = plan()
    grown = plan({"axes.rows": ["all", "balanced", "random"], "data.curate": {"tail": 0.1}})
    assert {point.train.id for point in small.points} == {
        point.train.id for point in grown.points if point.point.rows == "all"
    }
    assert len({point.train.id for point in grown.points}) == 3 * len(small.points)
    [made] = {step.id: step for step in grown.steps() if step.kind == "curate"}.values()
    assert made.inputs.data.id == small.prepare.id
    soften = {step.id for step in grown.steps() if step.kind == "soften"}
    assert soften == {step.id for step in small.steps() if step.kind == "soften"}
    other = plan({"axes.rows": ["balanced"], "data.curate": {"threshold": 3}})  # its tail says nothing then
    assert "tail" not in next(step for step in other.steps() if step.kind == "curate").params


def test_smoothing_and_temperatures_are_points_of_their_own_and_leave_the_others_alone(plan: MakePlan) -> None:
    small, grown = plan(), plan({"axes.smoothing": [0, 0.1], "axes.temperature": [1, 2]})
    ids = {point.train.id for point in small.points}
    points = [point.point for point in grown.points]
    assert ids < {point.train.id for point in grown.points}
    assert (
        len(points) == len({point.train.id for point in grown.points}) == 2 * (1 + 2) * 2
    )  # lr x (SFT + KD at each) x smoothing
    assert {point.temperature for point in points if not point.alpha} == {1}, "without a soft term there is none"
    assert plan({"axes.temperature": [2]}).points[-1].train.id == plan({"objective.temperature": 2}).points[-1].train.id


def test_on_policy_points_train_on_the_prompts_of_the_data_and_know_how_they_sample(plan: MakePlan) -> None:
    gold: dict[str, Any] = {"soft_labels": {"form": "online"}, "axes.alpha": [1], "axes.lr": [1e-3]}
    sampled = gold | {"axes.labels": ["gold", "student"]}

    def ids(changes: dict[str, Any]) -> list[str | None]:
        return [point.train.id for point in plan(changes).points]

    made = plan(sampled)
    word_level, on_policy = made.points
    assert ids(gold) == [word_level.train.id], "its id knows nothing of sampling"
    assert on_policy.train.inputs == word_level.train.inputs
    assert on_policy.train.params["sampling"] == {"temperature": 1.0, "top_k": None, "max_new_tokens": 256}
    for change in (
        {"axes.on_policy": [0.5]},
        {"objective.sampling": {"temperature": 0.5}},
        {"objective.sampling": {"top_k": 5}},
        {"objective.sampling": {"max_new_tokens": 8}},
    ):
        assert ids(sampled | change)[0] == word_level.train.id
        assert ids(sampled | change)[1] != on_policy.train.id
    assert ids(sampled | {"objective.sampling": {"max_new_tokens": 256}}) == ids(sampled), "the default, written out"
    assert ids(sampled | {"axes.on_policy": [0.5]}) == ids(sampled | {"objective.on_policy": 0.5})


def test_labels_that_hold_for_one_temperature_are_made_for_each(plan: MakePlan) -> None:
    made = plan({"axes.temperature": [1, 2], "soft_labels": {"form": "topk", "k": 4}})
    labels = {
        point.train.inputs.soft_labels.params["temperature"]: point.point.temperature
        for point in made.points
        if point.point.alpha
    }
    assert labels == {1.0: 1.0, 2.0: 2.0}
    whole = plan({"axes.temperature": [1, 2]})
    assert len({point.train.inputs.soft_labels.id for point in whole.points if point.point.alpha}) == 1


def test_a_grid_that_grows_keeps_all_it_has(plan: MakePlan) -> None:
    small = {step.id for step in plan().steps()}
    grown = {"axes.lr": [1e-3, 1e-4, 1e-5], "axes.alpha": [0, 0.1, 1], "axes.seed": [0, 1]}
    assert small < {step.id for step in plan(grown).steps()}


@pytest.mark.parametrize(
    ("kind", "name", "affected"),
    [
        (declare.Recipe, "dolly", DATA),
        (declare.Template, "alpaca", DATA | {"xsum"}),
        (declare.Schedule, "cosine", TEACHING | POINTS),
        (declare.Form, "hidden", LABELS),
        (declare.Task, "xsum", {"xsum"}),
        (declare.Task, "heldout_loss", {"loss"}),
        (declare.Metric, "rouge", set()),  # answers are kept: only what is measured on them is new
        (declare.Stage, "model", ALL),
        (declare.Stage, "prepare", DATA),
        (declare.Stage, "teach", TEACHING),
        (declare.Stage, "soften", LABELS),
        (declare.Stage, "augment", set()),
        (declare.Stage, "train", POINTS),
        (declare.Stage, "generate", {"answers", "xsum"}),
        (declare.Stage, "measure", {"loss"}),
    ],
)
def test_a_components_new_version_makes_new_ids(
    kind: type[Declared], name: str, affected: set[str], plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plan()
    known = spec.components
    found = known(kind)[name]
    bumped = known(kind) | {name: dataclasses.replace(found, declared=dataclasses.replace(found.declared, version=99))}
    monkeypatch.setattr(spec, "components", lambda asked: bumped if asked is kind else known(asked))
    after = plan()
    assert changed(before, after) == affected
    if kind is declare.Metric:
        measured = [{score.measure.id for score in one.scores if score.generate} for one in (before, after)]
        assert not measured[0] & measured[1]


@pytest.mark.parametrize("given", [{}, {"arguments": {}}, {"arguments": None, "close_thought": False}])
def test_a_templates_parameters_at_their_defaults_are_not_in_ids(given: dict[str, Any], plan: MakePlan) -> None:
    """They came later than the template, whose rows they leave as they were."""
    assert plan({"data.template": {"name": "chat", **given}}).prepare.params["template"] == {
        "name": "chat",
        "version": 1,
        "params": {},
    }


@pytest.mark.parametrize(
    "task",
    [
        {"name": "xsum", "source": "file:HERE/xsum.jsonl", "prompt": "chat"},
        {"name": "lm_eval:x", "chat_template": True},
    ],
)
def test_what_a_chat_is_given_is_in_the_ids_of_all_chats(task: dict[str, Any], plan: MakePlan) -> None:
    def asked(template: Any) -> Any:
        (score,) = [
            score
            for score in plan({"data.template": template, "score.tasks": [task]}).scores
            if score.subject == "student"
        ]
        return (score.generate or score.measure).id

    on, off = ({"name": "chat", "arguments": {"enable_thinking": value}} for value in (True, False))
    assert asked("chat") == asked("alpaca") == asked({"name": "alpaca", "bos": True})
    assert len({asked("chat"), asked(on), asked(off)}) == 3


def test_a_parameter_that_came_later_enters_only_where_it_is_used(
    plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def floor(later: tuple[str, ...], schedule: Any) -> Any:
        known = spec.components
        found = known(declare.Schedule)["cosine"]
        changed = {"cosine": dataclasses.replace(found, declared=dataclasses.replace(found.declared, later=later))}
        with monkeypatch.context() as patch:
            patch.setattr(spec, "components", lambda kind: known(kind) | (changed if kind is declare.Schedule else {}))
            return plan({"train.schedule": schedule}).points[0].train.params["schedule"]["params"]

    assert floor((), "cosine") == floor((), {"name": "cosine", "floor": 0}) == {"floor": 0.0}
    assert floor(("floor",), "cosine") == floor(("floor",), {"name": "cosine", "floor": 0}) == {}
    assert floor(("floor",), {"name": "cosine", "floor": 0.1}) == {"floor": 0.1}
