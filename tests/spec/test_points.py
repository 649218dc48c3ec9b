"""The points of a grid: their order, those added and taken away, and none twice."""

from __future__ import annotations

from typing import Any

import pytest

from kdray.spec.load import parse_grid
from kdray.spec.points import Point, expand, rank
from tests.conftest import TinyGrid
from tests.spec.wrong import POINT, TEACHERS, cases, check

POINTS = {
    "labels twice": ({"axes.labels": ["both", "both"]}, ["axes: the point lr0.001-b2-a0-s0-both occurs twice"]),
    "excluding labels that are not there": (
        {"exclude": [{**POINT, "labels": "teacher"}]},
        ["lr0.001-b2-a0-s0-teacher is not in the grid"],
    ),
    "a value twice on an axis": (
        {"axes.lr": [1e-3, 1e-4, 1e-3]},
        ["axes: the point lr0.001-b2-a0-s0 occurs twice", "once"],
    ),
    "alpha 0 and -0.0": ({"axes.alpha": [0, -0.0]}, ["axes: the point lr0.001-b2-a0-s0 occurs twice"]),
    "values that look the same": (
        {"axes.lr": [1e-3, 1.0000001e-3]},
        ["axes: the point lr0.001-b2-a0-s0 occurs twice", "six digits"],
    ),
    "including a point of the axes": ({"include": [POINT]}, ["include: the point lr0.001-b2-a0-s0 occurs twice"]),
    "including a point twice": (
        {"include": [{**POINT, "seed": 1}, {**POINT, "seed": 1}]},
        ["include: the point lr0.001-b2-a0-s1 occurs twice"],
    ),
    "excluding what is not there": ({"exclude": [{**POINT, "lr": 5}]}, ["exclude.0: lr5-b2-a0-s0 is not in the grid"]),
    "excluding a point twice": ({"exclude": [POINT, {**POINT}]}, ["exclude.1: lr0.001-b2-a0-s0 is not in the grid"]),
    "excluding every point": ({"axes.lr": [1e-3], "axes.alpha": [0], "exclude": [POINT]}, ["exclude: leaves no point"]),
    "a choice among one teacher": ({"axes.teacher": ["big"]}, ["axes.teacher: big without teachers"]),
    "an unknown teacher": (
        TEACHERS | {"axes.teacher": ["bigg"]},
        ["axes.teacher: no teacher 'bigg'", "did you mean 'big'?"],
    ),
    "a point by hand without its teacher": (
        TEACHERS | {"include": [{"lr": 1e-5, "batch": 2, "alpha": 1}]},
        ["include.0.teacher: missing", "known: big, small"],
    ),
    "a temperature without a soft term": (
        {"include": [{**POINT, "alpha": 0, "temperature": 2}]},
        ["include: the point lr0.001-b2-a0-s0 occurs twice"],
    ),
    "on-policy steps of a point with other labels": (
        {"include": [{**POINT, "alpha": 1, "on_policy": 0.5}]},
        ["include.0.on_policy: 0.5 with labels gold", "use labels: student"],
    ),
    "a priority of what is not there": (
        {"runtime.priority": [{"alpha": 0}, {"lr": 1e-4, "alpha": 5}]},
        ["runtime.priority.1.alpha: no point has lr 0.0001 alpha 5", "known: 0, 0.1"],
    ),
    "a priority of what does not occur together": (
        {"runtime.priority": [{"alpha": 0, "seed": 3}], "include": [{**POINT, "alpha": 1, "seed": 3}]},
        ["runtime.priority.0.seed: no point has alpha 0 seed 3", "known: 0"],
    ),
    "a priority of a teacher among one": (
        {"runtime.priority": [{"teacher": "big"}]},
        ["runtime.priority.0.teacher: no point has teacher big", "known: none"],
    ),
    "a priority of everything": (
        {"runtime.priority": [{}]},
        ["runtime.priority.0: names nothing", "name some of lr, "],
    ),
    "a misspelt priority": (
        {"runtime.priority": [{"aplha": 1}]},
        ["runtime.priority.0.aplha: unknown field", "did you mean 'alpha'?"],
    ),
}


@cases(POINTS)
def test_a_wrong_point_is_named(wrong: dict[str, Any], said: list[str], tiny_grid: TinyGrid) -> None:
    check(tiny_grid.text(wrong), said)


def test_labels_come_first_in_the_order_of_points_and_last_in_their_names(tiny_grid: TinyGrid) -> None:
    axes = {
        "axes.lr": [1e-3],
        "axes.labels": ["both", "gold"],
        "include": [{"lr": 1e-3, "batch": 2, "alpha": 0, "labels": "teacher"}],
    }
    exclude = [{"lr": 1e-3, "batch": 2, "alpha": 0.1, "labels": "both"}]
    slugs = [point.slug for point in expand(parse_grid(tiny_grid.text({**axes, "exclude": exclude})))]
    assert slugs == ["lr0.001-b2-a0-s0", "lr0.001-b2-a0.1-s0", "lr0.001-b2-a0-s0-teacher", "lr0.001-b2-a0-s0-both"]


def test_shares_of_on_policy_steps_are_points_of_the_labels_student_alone(tiny_grid: TinyGrid) -> None:
    grid: dict[str, Any] = {"axes.lr": [1e-3], "axes.alpha": [1], "soft_labels": {"form": "online"}}
    grid |= {"axes.labels": ["student", "gold"], "objective.on_policy": 0.25}
    points = expand(parse_grid(tiny_grid.text(grid)))
    assert [(point.slug, point.on_policy) for point in points] == [
        ("lr0.001-b2-a1-s0", 0.0),
        ("lr0.001-b2-a1-s0-student-op0.25", 0.25),
    ]
    more = {"include": [{"lr": 1e-3, "batch": 2, "alpha": 2, "labels": "student"}], "axes.on_policy": [1, 0]}
    slugs = [point.slug for point in expand(parse_grid(tiny_grid.text(grid | more)))]
    names = ["", "-student-op0", "-student"]
    assert slugs == [*(f"lr0.001-b2-a1-s0{name}" for name in names), "lr0.001-b2-a2-s0-student-op0.25"]


def test_points_come_in_the_order_of_alpha_lr_batch_seed(tiny_grid: TinyGrid) -> None:
    axes = {"axes.lr": [2e-3, 1e-3], "axes.batch": [8, 4], "axes.alpha": [1, 0], "axes.seed": [1, 0]}
    points = expand(parse_grid(tiny_grid.text(axes)))
    assert points == [Point(a, lr, b, s) for a in (0, 1) for lr in (1e-3, 2e-3) for b in (4, 8) for s in (0, 1)]


def test_include_adds_points_and_exclude_takes_them_away(tiny_grid: TinyGrid) -> None:
    one, two = {"lr": 1e-2, "batch": 1, "alpha": 0.5, "seed": 3}, {"lr": 1e-3, "batch": 2, "alpha": 0.1}
    points = expand(parse_grid(tiny_grid.text({"include": [one], "exclude": [two]})))
    assert [point.slug for point in points] == [
        "lr0.0001-b2-a0-s0",
        "lr0.001-b2-a0-s0",
        "lr0.0001-b2-a0.1-s0",
        "lr0.01-b1-a0.5-s3",
    ]


def test_the_first_entry_of_the_priority_that_names_a_point_is_its_rank(tiny_grid: TinyGrid) -> None:
    priority = [{"alpha": 0.1, "lr": 1e-3}, {"alpha": 0}]
    grid = parse_grid(tiny_grid.text({"runtime.priority": priority}))
    ranks = {point.slug: rank(point, grid.runtime.priority) for point in expand(grid)}
    assert ranks == {
        "lr0.0001-b2-a0-s0": 1,
        "lr0.001-b2-a0-s0": 1,
        "lr0.0001-b2-a0.1-s0": 2,
        "lr0.001-b2-a0.1-s0": 0,
    }


def test_an_included_point_can_be_excluded_again(tiny_grid: TinyGrid) -> None:
    one = {"lr": 1e-2, "batch": 1, "alpha": 0}
    assert len(expand(parse_grid(tiny_grid.text({"include": [one], "exclude": [{**one}]})))) == 4


@pytest.mark.slow
def test_a_thousand_points_take_no_time(tiny_grid: TinyGrid) -> None:
    grid = parse_grid(tiny_grid.text({"axes.seed": list(range(1000)), "axes.batch": [1, 2, 4, 8, 16]}))
    slugs = [point.slug for point in expand(grid)]
    assert len(slugs) == len(set(slugs)) == 20_000
