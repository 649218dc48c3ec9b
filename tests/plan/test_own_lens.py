"""A lens of the untrained student's own answers in the plan, and the engine that generates answers in ids."""

from __future__ import annotations

from kdray.plan import Plan, Step
from tests.plan.conftest import MakePlan

XSUM = {"name": "xsum", "source": "file:HERE/xsum.jsonl"}
METRIC = {"name": "support_standin", "model": "file:HERE/teacher"}
MARKED = {"annotations": "jsonl", "source": "file:HERE/rows.jsonl"}


def own(task: object = XSUM, **changes: object) -> dict[str, object]:
    return {"score.tasks": [dict(XSUM)], "lens": {"own": {"task": task, "metric": METRIC, **changes}}}


def steps(plan: Plan, kind: str) -> list[Step]:
    return [step for step in plan.steps() if step.kind == kind]


def test_the_lens_learns_from_the_untrained_students_answers_alone(plan: MakePlan) -> None:
    made = plan(own())
    [annotate], [lens] = steps(made, "annotate"), steps(made, "lens")
    assert lens.inputs.named == {"model": made.models["student"], "annotated": annotate}
    answers = annotate.inputs.outputs
    assert answers.inputs.model is made.models["student"]
    scored = [score.generate for score in made.scores if score.subject == "student" and score.generate]
    assert answers.id in [generate.id for generate in scored]  # the same answers as the score's: generated once


def test_what_marks_the_answers_changes_the_lens_and_no_answer(plan: MakePlan) -> None:
    first, second = plan(own()), plan(own(threshold=1.0))
    assert {step.id for step in steps(first, "generate")} == {step.id for step in steps(second, "generate")}
    for kind in ("annotate", "lens"):
        assert steps(first, kind)[0].id != steps(second, kind)[0].id


def test_how_many_responses_of_a_file_are_used_changes_the_lens(plan: MakePlan) -> None:
    made = {limit: plan({"score.tasks": [dict(XSUM)], "lens": MARKED | {"limit": limit}}) for limit in (None, 2, 3)}
    [whole], [two], [three] = (steps(each, "lens") for each in made.values())
    assert len({whole.id, two.id, three.id}) == 3
    assert (whole.params["limit"], "evenly" in whole.params) == (
        None,
        False,
    )  # as ever, so that such lenses are found again
    assert (two.params["limit"], two.params["evenly"]) == (2, True)  # the first two of the file, in ids from before


def test_the_lens_may_guide_the_decoding_of_the_models_that_it_fits(plan: MakePlan) -> None:
    guided = {"name": "lookback_guided", "guide": "lens"}
    changes = {
        "score.decoding": ["greedy", guided],
        "score.metrics": [{"name": "selfcheck", "samples": 1, "model": "file:HERE/teacher"}],
    }
    made = plan(own() | changes)
    [lens] = steps(made, "lens")
    by_lens = [score for score in made.scores if score.decoding == "lookback_guided-guide-lens"]
    assert {score.generate.inputs.guide.id for score in by_lens if score.generate} == {lens.id}
    assert {score.subject for score in made.scores} - {score.subject for score in by_lens} == {
        "teacher"
    }  # of another shape
    drawn = [step for step in steps(made, "generate") if "sample0" in step.slug]
    assert drawn
    assert not any(step.inputs.guide for step in drawn)
    again = plan(own(threshold=1.0) | changes)
    ids = {step.id for step in steps(made, "generate") if step.inputs.guide}
    assert ids.isdisjoint(step.id for step in steps(again, "generate"))


def test_the_engine_that_generates_is_part_of_answers_ids_and_of_no_others(plan: MakePlan) -> None:
    changes = {"score.tasks": ["heldout_loss", XSUM]}
    ours, theirs = plan(changes), plan(changes | {"score.engine": "vllm"})
    assert {step.id for step in steps(ours, "generate")}.isdisjoint(step.id for step in steps(theirs, "generate"))
    for kind in ("train", "soften"):
        assert [step.id for step in steps(ours, kind)] == [step.id for step in steps(theirs, kind)]
    losses = [
        [score.measure.id for score in made.scores if score.task.name == "heldout_loss"] for made in (ours, theirs)
    ]
    assert losses[0] == losses[1]
