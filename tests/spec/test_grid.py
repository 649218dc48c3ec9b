"""What a valid grid file means: numbers, defaults, lengths and points."""

from __future__ import annotations

import math

import pytest

from kdray.spec.load import parse_grid
from kdray.spec.points import Point, expand
from tests.conftest import ABSENT, TinyGrid


@pytest.mark.parametrize("written", ["1e-5", "1.0e-5", "0.00001", "1E-05", ".1e-4", "10e-6"])
def test_a_number_may_be_written_in_every_usual_way(written: str, tiny_grid: TinyGrid) -> None:
    text = tiny_grid.text({"axes.lr": "LR"}).replace("LR", f"[{written}]")
    assert parse_grid(text).axes.lr == [1e-5]


@pytest.mark.parametrize("written", ["no", "on", "1:30", "2020-01-01", "0x10", "1_000", "'1'"])
def test_what_yaml_1_1_would_turn_into_something_else_stays_text(written: str, tiny_grid: TinyGrid) -> None:
    text = tiny_grid.text({"question": "HERE-IT-IS"}).replace("HERE-IT-IS", written)
    assert parse_grid(text.replace(str(tiny_grid.folder) + "-IT-IS", written)).question == written.strip("'")


@pytest.mark.parametrize("alpha", ["0", "0.0", "-0.0", "-0"])
def test_zero_has_no_sign(alpha: str, tiny_grid: TinyGrid) -> None:
    grid = parse_grid(tiny_grid.text({"axes.alpha": "ALPHA"}).replace("ALPHA", f"[{alpha}]"))
    assert [math.copysign(1, value) for value in grid.axes.alpha] == [1]
    assert {point.slug for point in expand(grid)} == {"lr0.001-b2-a0-s0", "lr0.0001-b2-a0-s0"}


def test_labels_come_first_in_the_order_of_points_and_last_in_their_names(tiny_grid: TinyGrid) -> None:
    axes = {"axes.lr": [1e-3], "axes.labels": ["both", "gold"], "include": [{"lr": 1e-3, "batch": 2, "alpha": 0, "labels": "teacher"}]}
    exclude = [{"lr": 1e-3, "batch": 2, "alpha": 0.1, "labels": "both"}]
    slugs = [point.slug for point in expand(parse_grid(tiny_grid.text({**axes, "exclude": exclude})))]
    assert slugs == ["lr0.001-b2-a0-s0", "lr0.001-b2-a0.1-s0", "lr0.001-b2-a0-s0-teacher", "lr0.001-b2-a0-s0-both"]


def test_points_come_in_the_order_of_alpha_lr_batch_seed(tiny_grid: TinyGrid) -> None:
    axes = {"axes.lr": [2e-3, 1e-3], "axes.batch": [8, 4], "axes.alpha": [1, 0], "axes.seed": [1, 0]}
    points = expand(parse_grid(tiny_grid.text(axes)))
    assert points == [Point(a, lr, b, s) for a in (0, 1) for lr in (1e-3, 2e-3) for b in (4, 8) for s in (0, 1)]


def test_include_adds_points_and_exclude_takes_them_away(tiny_grid: TinyGrid) -> None:
    one, two = {"lr": 1e-2, "batch": 1, "alpha": 0.5, "seed": 3}, {"lr": 1e-3, "batch": 2, "alpha": 0.1}
    points = expand(parse_grid(tiny_grid.text({"include": [one], "exclude": [two]})))
    assert [point.slug for point in points] == ["lr0.0001-b2-a0-s0", "lr0.001-b2-a0-s0", "lr0.0001-b2-a0.1-s0", "lr0.01-b1-a0.5-s3"]


def test_an_included_point_can_be_excluded_again(tiny_grid: TinyGrid) -> None:
    one = {"lr": 1e-2, "batch": 1, "alpha": 0}
    assert len(expand(parse_grid(tiny_grid.text({"include": [one], "exclude": [{**one}]})))) == 4


def test_a_thousand_points_take_no_time(tiny_grid: TinyGrid) -> None:
    grid = parse_grid(tiny_grid.text({"axes.seed": list(range(1000)), "axes.batch": [1, 2, 4, 8, 16]}))
    slugs = [point.slug for point in expand(grid)]
    assert len(slugs) == len(set(slugs)) == 20_000


@pytest.mark.parametrize(
    ("train", "unit", "kept"),
    [
        ({"epochs": 3, "keep": [1, 2]}, "epochs", [1, 2, 3]),
        ({"epochs": 2.5, "keep": [0.5]}, "epochs", [0.5, 2.5]),
        ({"steps": 10, "keep": [10, 5]}, "steps", [5, 10]),
        ({"steps": 10}, "steps", [10]),
    ],
)
def test_the_end_is_always_kept(train: dict[str, object], unit: str, kept: list[float], tiny_grid: TinyGrid) -> None:
    grid = parse_grid(tiny_grid.text({"train": train}))
    assert (grid.train.unit, grid.train.kept) == (unit, kept)


def test_without_soft_labels_no_teacher_is_needed(tiny_grid: TinyGrid) -> None:
    assert parse_grid(tiny_grid.text({"teacher": ABSENT, "axes.alpha": [0]})).teacher is None


def test_a_component_gets_all_its_parameters(tiny_grid: TinyGrid) -> None:
    grid = parse_grid(tiny_grid.text({"train.schedule": {"name": "cosine"}, "score.tasks": [{"name": "heldout_loss", "limit": 3}]}))
    assert grid.train.schedule.params == {"floor": 0.0}
    assert grid.score.tasks[0].params == {"limit": 3}


@pytest.mark.parametrize("floor", ["0", "0.0", "-0.0"])
def test_a_float_parameter_is_a_float_however_it_is_written(floor: str, tiny_grid: TinyGrid) -> None:
    schedule = f"{{name: cosine, floor: {floor}}}"
    grid = parse_grid(tiny_grid.text({"train.schedule": "SCHEDULE"}).replace("SCHEDULE", schedule))
    assert repr(grid.train.schedule.params) == "{'floor': 0.0}"


def test_a_read_grid_cannot_be_changed(tiny_grid: TinyGrid) -> None:
    grid = parse_grid(tiny_grid.text())
    with pytest.raises(ValueError, match="frozen"):
        grid.train.steps = 3
