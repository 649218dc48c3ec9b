"""A plan without points: models that are only scored, by a grid that lacks all that training needs."""

from __future__ import annotations

import pytest

from kdray.plan import make_scoring_plan
from kdray.spec import load_grid
from kdray.spec.grid import Grid
from kdray.spec.sections.base import Use
from kdray.store import Outer
from tests.conftest import TinyGrid
from tests.plan.conftest import MakePlan

XSUM = {"name": "xsum", "source": "file:HERE/xsum.jsonl"}
SOURCE = {"annotations": "jsonl", "source": "file:HERE/rows.jsonl", "limit": 3}


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, ["generate", "measure"]),
        (
            {"score.tasks": [XSUM | {"prompt": "chat"}], "score.decoding": ["greedy", "dola"]},
            ["generate", "measure"] * 2,
        ),
        ({"score.tasks": ["lm_eval:sciq", {"name": "lm_eval:boolq", "chat_template": True}]}, ["measure", "measure"]),
        (
            {"score.metrics": [{"name": "support_standin", "model": "file:HERE/student"}]},
            ["generate", "measure", "measure"],
        ),
        ({"lens": SOURCE}, ["generate", "measure", "lens", "measure"]),
    ],
)
@pytest.mark.parametrize("template", ["chat", "alpaca"])
def test_models_are_planned_with_the_ids_that_a_grid_gives_them(
    changes: dict[str, object], kinds: list[str], template: str, plan: MakePlan, tiny_grid: TinyGrid
) -> None:
    changes = {"score.tasks": [XSUM], "data.template": template} | changes
    grid = load_grid(tiny_grid(changes))
    only = Grid.only_scoring("models", grid.score, Use(name=template), grid.lens, grid.runtime)
    made = make_scoring_plan(only, {"mine": f"file:{tiny_grid.folder}/student"}, Outer(tiny_grid.folder / "store"))
    steps = [step for step in made.steps() if step.kind != "model"]
    assert [step.kind for step in steps] == kinds
    in_a_grid = {step.id for step in plan(changes).steps()}
    assert {step.id for step in steps} <= in_a_grid, "what a grid has measured is measured again"


def test_a_teacher_with_other_tokens_is_asked_in_its_own(plan: MakePlan) -> None:
    """Of the student's ids it would read another text; what it loses on its own tokens is no loss on the student's."""
    made = plan({"soft_labels.align": "text", "score.tasks": ["heldout_loss", "heldout_answers"]})
    asked = {score.subject: score.generate.inputs.data for score in made.scores if score.generate}
    assert (asked["student"].kind, asked["teacher"].kind) == ("prepare", "retokenise")
    assert all(asked[point.point] is made.prepare for point in made.points)
    assert {score.subject for score in made.scores if score.task.name == "heldout_loss"} >= {"student"}
    assert not [score for score in made.scores if (score.subject, score.task.name) == ("teacher", "heldout_loss")]
