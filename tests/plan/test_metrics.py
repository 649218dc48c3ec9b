"""Metrics of a grid: which task gets which, and that a new one generates and measures nothing again."""

from __future__ import annotations

from typing import Any

import pytest

from kdray.orchestration.work import weights_read_by
from kdray.plan import Plan
from kdray.spec.errors import InputError
from kdray.spec.points import Point
from tests.conftest import TinyGrid
from tests.plan.conftest import MakePlan

STANDIN = {"name": "support_standin", "model": "file:HERE/teacher"}


def measured(plan: Plan, task: str = "xsum") -> dict[str, Any]:
    """The student's measurements of a task's answers, by the metrics that they take."""
    found = [score for score in plan.scores if score.subject == "student" and score.task.name == task]
    return {"+".join(metric["name"] for metric in score.measure.params["metrics"]): score for score in found}


def test_a_new_metric_generates_and_measures_nothing_again(plan: MakePlan) -> None:
    before, after = measured(plan()), measured(plan({"score.metrics": [STANDIN]}))
    assert list(before) == ["rouge"]
    assert list(after) == ["rouge", "support_standin"]
    assert after["rouge"].measure.id == before["rouge"].measure.id
    assert {score.generate.id for score in after.values()} == {before["rouge"].generate.id}


def test_quick_metrics_share_a_step_and_each_slow_one_has_its_own(plan: MakePlan) -> None:
    found = measured(plan({"score.metrics": ["chrf", STANDIN, {"name": "judge", "model": "m"}]}))
    assert list(found) == ["rouge+chrf", "support_standin", "judge"]
    assert len({score.measure.slug for score in found.values()}) == 3


def test_a_metrics_model_is_a_step_and_known_by_its_content(plan: MakePlan, tiny_grid: TinyGrid) -> None:
    first = plan({"score.metrics": [STANDIN]})
    model = measured(first)["support_standin"].measure.inputs.named["support_standin.model"]
    assert model.kind == "model"
    assert model.id == first.models["teacher"].inputs.student.id, "the teacher's own model is not fetched twice"
    assert "model" not in measured(first)["support_standin"].measure.params["metrics"][0]["params"]
    weights = tiny_grid.folder / "teacher" / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"more")
    again = plan({"score.metrics": [STANDIN]})
    assert measured(again)["support_standin"].measure.id != measured(first)["support_standin"].measure.id
    assert measured(again)["rouge"].measure.id == measured(first)["rouge"].measure.id


def test_a_metric_that_asks_the_answerer_reads_its_weights(plan: MakePlan) -> None:
    made = plan({"score.metrics": ["selfcite"]})
    step = measured(made)["selfcite"].measure
    assert step.inputs.model is made.models["student"]
    assert measured(made)["rouge"].measure.inputs.model is None
    assert measured(made)["rouge"].measure.id == measured(plan())["rouge"].measure.id
    of_points = [score for score in made.scores if isinstance(score.subject, Point) and score.task.name == "xsum"]
    read = {score.measure.slug: weights_read_by(score.measure) for score in of_points}
    assert {export.id for slug, export in read.items() if export and slug.endswith("-selfcite")} == {
        export.id for planned in made.points for export in planned.exports.values()
    }
    assert not any(export for slug, export in read.items() if not slug.endswith("-selfcite"))
    other = plan({"score.metrics": ["selfcite"], "score.dtype": "bfloat16"})
    assert step.id != measured(other)["selfcite"].measure.id


def test_samples_are_generated_once_for_each_seed(plan: MakePlan) -> None:
    metric = {"name": "selfcheck", "model": "file:HERE/teacher", "samples": 3}
    made = plan({"score.metrics": [metric]})
    inputs = measured(made)["selfcheck"].measure.inputs
    drawn = list(inputs.samples)
    assert len(drawn) == 3
    assert [step.params["decoding"]["params"]["seed"] for step in drawn] == [0, 1, 2]
    assert all(step.kind == "generate" for step in drawn)
    assert {step.id for step in drawn} <= {step.id for step in made.steps()}
    fewer = plan({"score.metrics": [metric | {"samples": 2}]})
    assert {step.id for step in inputs.samples[:2]} == {
        step.id for step in measured(fewer)["selfcheck"].measure.inputs.samples
    }


@pytest.mark.parametrize("change", [{"budget": 1.0}, {"price_in": 2.0}, {"concurrency": 9}])
def test_what_a_judge_costs_is_no_part_of_its_id(change: dict[str, Any], plan: MakePlan) -> None:
    one, other = (plan({"score.metrics": [{"name": "judge", "model": "m", **more}]}) for more in ({}, change))
    assert measured(one)["judge"].measure.id == measured(other)["judge"].measure.id
    renamed = plan({"score.metrics": [{"name": "judge", "model": "n"}]})
    assert measured(renamed)["judge"].measure.id != measured(one)["judge"].measure.id


def test_a_prompt_of_its_own_does_not_depend_on_the_grids_template(plan: MakePlan) -> None:
    task = {"name": "xsum", "source": "file:HERE/xsum.jsonl", "prompt": "lm_eval"}
    made = [plan({"score.tasks": [task], "data.template": template}) for template in ("alpaca", "chat")]
    assert len({measured(one)["rouge"].generate.id for one in made}) == 1
    assert measured(plan({"score.tasks": [task | {"prompt": "leaderboard"}]}))["rouge"].generate.id not in {
        measured(one)["rouge"].generate.id for one in made
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score.metrics": ["hhm"]}, "score.metrics.0: no metric 'hhm'; did you mean 'hhem'?"),
        ({"score.metrics": ["chrf", "chrf"]}, "score.metrics.1: 'chrf' a second time"),
        (
            {"score.metrics": ["truthful"]},
            "score.metrics.0: none of the grid's tasks gives what 'truthful' needs; it fits truthfulqa",
        ),
        (
            {"score.metrics": [{"name": "hhem", "model": "vectara"}]},
            "score.metrics.0.model: 'vectara' has no known scheme",
        ),
        ({"score.metrics": ["judge"]}, "score.metrics.0.model: missing; metric 'judge' needs model: str"),
        ({"score.metrics": [{"name": "selfcheck", "samples": 0}]}, "score.metrics.0.samples: 0; must be int > 0"),
        ({"report.primary": "xsum/fc"}, "report.primary: nothing measures 'xsum/fc'"),
        ({"score.tasks": [{"name": "xsum", "prompt": "plain"}]}, "score.tasks.0.prompt: 'plain'; must be"),
    ],
)
def test_a_wrong_metric_is_named(changes: dict[str, Any], said: str, plan: MakePlan) -> None:
    with pytest.raises(InputError) as caught:
        plan(changes)
    assert said in str(caught.value)


def test_a_metrics_number_can_be_what_the_verdict_is_about(plan: MakePlan) -> None:
    assert plan({"score.metrics": [STANDIN], "report.primary": "xsum/support"}).grid.report.primary == "xsum/support"
