"""Points that train on from others on their own citations: what they read, and what knows of them."""

from __future__ import annotations

from typing import Any

from kdray.orchestration.trainer import settings_of
from kdray.report.arms import arm_of, arms_of
from kdray.spec.points import Point
from tests.plan.conftest import MakePlan

ALIGN = {"lr": 1e-5, "steps": 3, "beta": 2.0, "answers": 5, "max_new_tokens": 16}
CHANGES: dict[str, Any] = {"axes.aligned": [False, True], "align": ALIGN}


def test_an_aligned_point_learns_from_the_answers_of_the_end_of_its_plain_one(plan: MakePlan) -> None:
    made, before = plan(CHANGES), plan()
    plain, aligned = made.points[:4], made.points[4:]
    assert [each.train.id for each in plain] == [each.train.id for each in before.points]
    assert [each.point.aligned for each in aligned] == [True] * 4
    for old, new in zip(plain, aligned, strict=True):
        inputs = new.train.inputs
        assert new.train.slug == f"{old.train.slug}-aligned"
        assert inputs.student is old.exports[4.0]
        assert inputs.data is made.prepare
        assert inputs.pairs
        assert inputs.pairs.inputs.model is old.exports[4.0]
        assert inputs.pairs.inputs.data is made.prepare
        assert inputs.pairs.params["task"]["params"] == {"limit": 5, "max_new_tokens": 16}
        assert inputs.pairs.params["decoding"]["params"]["candidates"] == 10
        assert list(new.exports) == [4.0]
        assert new.exports[4.0].inputs.point is new.train
    settings = settings_of(aligned[0].train.params)
    assert (settings.lr, settings.batch, settings.unit, settings.length) == (1e-5, 8, "steps", 3.0)
    assert (settings.simpo, settings.packing, settings.alpha) == ({"beta": 2.0, "gamma": 1.4}, False, 0.0)
    scored = {(score.subject, score.position) for score in made.scores if isinstance(score.subject, Point)}
    assert {(each.point, 4.0) for each in aligned} <= scored
    assert not {(each.point, 2.0) for each in aligned} & scored
    others = {step.id for step in before.steps()}
    assert others < {step.id for step in made.steps()}


def test_what_says_how_enters_their_ids_and_no_others(plan: MakePlan) -> None:
    made = plan(CHANGES)
    for changed in ({"lr": 2e-5}, {"steps": 4}, {"batch": 4}, {"beta": 3.0}, {"gamma": 0.5}):
        other = plan(CHANGES | {"align": ALIGN | changed})
        assert other.points[4].train.id != made.points[4].train.id
        assert other.points[4].train.inputs.pairs == made.points[4].train.inputs.pairs
        assert other.points[0].train.id == made.points[0].train.id
    for changed in ({"answers": 6}, {"max_new_tokens": 8}, {"candidates": 4}):
        other = plan(CHANGES | {"align": ALIGN | changed})
        assert other.points[4].train.inputs.pairs
        assert made.points[4].train.inputs.pairs
        assert other.points[4].train.inputs.pairs.id != made.points[4].train.inputs.pairs.id
        assert other.points[4].train.id != made.points[4].train.id


def test_they_are_arms_of_their_own(plan: MakePlan) -> None:
    made = plan(CHANGES)
    assert [arm.name for arm in arms_of(each.point for each in made.points)] == [
        "SFT",
        "KD 0.1",
        "SFT, aligned",
        "KD 0.1, aligned",
    ]
    assert arm_of(made.points[-1].point).aligned


def test_some_may_be_aligned_by_hand(plan: MakePlan) -> None:
    one = {"lr": 1e-3, "batch": 2, "alpha": 0, "aligned": True}
    made = plan({"align": ALIGN, "include": [one]})
    assert [each.train.slug for each in made.points if each.point.aligned] == ["lr0.001-b2-a0-s0-aligned"]
