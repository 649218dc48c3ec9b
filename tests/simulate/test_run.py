"""Simulated runs, against what can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kdray.cost.estimate import StepCost
from kdray.orchestration.resources import Node, Resources
from kdray.simulate.given import Losses, seconds_of
from kdray.simulate.run import (
    ANSWERS,
    BATCH,
    CHECKPOINTS,
    LARGER,
    LOADING,
    LOST,
    REDONE,
    SCORING_TAIL,
    Outcome,
    simulate,
)
from kdray.simulate.todo import Piece, PointWork, ScoreWork, Todo
from kdray.spec.errors import InputError

HOUR = 3600.0


def point(name: str, hours: float, gpus: int = 1, **fields: Any) -> PointWork:
    return PointWork(name, StepCost("train", gpus, hours * HOUR, 1.0, **fields), {f"{name} done": hours * HOUR})


def score(name: str, hours: float, *needs: str, items: int = 1, gpus: int = 1, loading: float = 0.0) -> ScoreWork:
    piece = Piece(key=name, gpus=gpus, seconds=hours * HOUR / items, model=name, loading=loading * HOUR)
    return ScoreWork(name, frozenset(needs), [piece] * items, answers=True)


def all_of(found: Outcome) -> float:
    return sum(found.busy.values()) + sum(found.idle.values())


def test_points_go_longest_first_as_many_as_there_are_places() -> None:
    todo = Todo([], [point("a", 1), point("b", 1), point("c", 2)], [])
    found = simulate(todo, Resources((Node(8, 2),), 1, beside=0))
    assert found.makespan == pytest.approx(2), "the long one last would make it 3"
    assert found.utilisation == pytest.approx(1)


def test_aligned_points_wait_for_all_others_and_for_all_answers_that_they_learn_from() -> None:
    answers = [score(f"{name} cited", hours, f"{name} done") for name, hours in (("a", 1), ("b", 3))]
    todo = Todo(
        [],
        [point("a", 1), point("b", 2)],
        [*answers, score("s", 1, "c done"), score("t", 1, "d done")],
        aligned=[point("c", 1), point("d", 1)],
        awaited=frozenset(["a cited", "b cited"]),
    )
    found = simulate(todo, Resources((Node(8, 2),), 1, beside=0))
    # b has trained after two hours, its answers are there after five; then c and d train, and both are scored
    assert found.makespan == pytest.approx(2 + 3 + 1 + 1)
    assert found.busy["train"] == pytest.approx(5)
    assert found.idle[ANSWERS] == pytest.approx(3), "the other GPU, while the last answers are cited"
    assert all_of(found) == pytest.approx(2 * found.makespan)
    left = replace(todo, points=[], scores=todo.scores[2:], awaited=frozenset())
    made = simulate(left, Resources((Node(8, 2),), 1, beside=0))
    assert made.makespan == pytest.approx(2)


def test_points_of_the_least_rank_go_first() -> None:
    points = [replace(point(name, hours), rank=rank) for name, hours, rank in (("a", 1, 0), ("b", 1, 0), ("c", 2, 1))]
    found = simulate(Todo([], points, []), Resources((Node(8, 2),), 1, beside=0))
    assert found.makespan == pytest.approx(3), "the longest last, as it is asked for"


def test_every_gpu_hour_is_busy_or_has_a_cause() -> None:
    todo = Todo(
        [StepCost("teach", 2, HOUR, 1.0), StepCost("soften", 1, 2.5 * HOUR, 1.0, None, 0.5 * HOUR, 4)],
        [point(f"p{i}", 1 + i / 7, gpus=2, busy=0.5) for i in range(5)],
        [score(f"s{i}", 2, f"p{i} done", items=9, loading=0.1) for i in range(5)] + [score("large", 1, gpus=3)],
    )
    found = simulate(todo, Resources((Node(8, 4), Node(8, 4)), 2))
    assert all_of(found) == pytest.approx(found.gpus * found.makespan)
    assert found.first_point == pytest.approx(1 + 0.5 + 0.5)
    assert found.idle["waiting for teach"] == pytest.approx(6)
    assert found.idle[BATCH] == pytest.approx(sum(1 + i / 7 for i in range(5)))
    assert found.busy["score"] == pytest.approx(5 * 2 + 3)
    assert found.idle[LOADING] >= 5 * 0.1


def test_a_checkpoint_is_scored_while_others_train_and_scoring_waits_for_the_first() -> None:
    todo = Todo([], [point("a", 1), point("b", 1)], [score("s", 1, "a done")])
    found = simulate(todo, Resources((Node(8, 2),), 1, beside=1))
    assert found.makespan == pytest.approx(2)
    assert found.idle[CHECKPOINTS] == pytest.approx(1)
    alone = simulate(replace(todo, points=[point("a", 1)]), Resources((Node(8, 2),), 1, beside=1))
    assert alone.idle[SCORING_TAIL] == pytest.approx(1)


def test_points_share_the_only_gpu_and_scoring_takes_the_parts_that_they_leave() -> None:
    points = [point(f"p{i}", 1, sharers=6) for i in range(7)]
    todo = Todo([StepCost("teach", 1, HOUR, 1.0)], points, [score("s", 1, "p0 done", items=2)])
    found = simulate(todo, Resources((Node(8, 1),), 1, per_gpu=6))
    assert found.points_beside == 6
    assert found.first_point == pytest.approx(1)
    assert found.makespan == pytest.approx(1 + 2), "six, then one and beside it the score's two halves"
    assert found.busy["train"] == pytest.approx(7 / 6)
    assert found.busy["score"] == pytest.approx(1 / 6)
    assert all_of(found) == pytest.approx(found.makespan)


def test_a_model_that_takes_the_whole_of_a_shared_gpu_is_scored_when_points_are_done() -> None:
    todo = Todo([], [point(f"p{i}", 1, sharers=6) for i in range(7)], [score("s", 1, "p0 done", gpus=6)])
    assert simulate(todo, Resources((Node(8, 1),), 1, per_gpu=6)).makespan == pytest.approx(3)
    with pytest.raises(InputError, match="1 on a node; a model that is scored needs 2 of one"):
        simulate(Todo([], [], [score("s", 1, gpus=12)]), Resources((Node(8, 1),), 1, per_gpu=6))


def test_one_models_batches_are_dealt_out_to_all() -> None:
    found = simulate(Todo([], [], [score("s", 8, items=64)]), Resources((Node(8, 4),), 1))
    assert found.makespan == pytest.approx(2)
    assert found.utilisation == pytest.approx(1)


def test_answers_by_vllm_come_after_the_last_point_from_all_gpus() -> None:
    todo = Todo([], [point("a", 1), point("b", 1)], [score("s", 4, "a done"), score("t", 2, "b done")], vllm=True)
    found = simulate(todo, Resources((Node(8, 2),), 1))
    assert found.makespan == pytest.approx(1 + 4), "each model has a GPU"
    assert found.idle[SCORING_TAIL] == pytest.approx(2)
    assert all_of(found) == pytest.approx(2 * found.makespan)


@pytest.mark.parametrize(
    ("models", "gpus", "hours"),
    [
        (1, 4, 0.5 + 2 / 4),  # one model has all of them
        (3, 4, 0.5 + 2 / 1),  # the first has two
        (4, 4, 0.5 + 2),
        (9, 4, 2 * (0.5 + 2) + 0.5 + 2 / 4),  # the last has all of them
    ],
)
def test_vllm_answers_as_many_models_at_once_as_there_are_gpus(models: int, gpus: int, hours: float) -> None:
    todo = Todo([], [], [score(f"s{i}", 2, loading=0.5) for i in range(models)], vllm=True)
    found = simulate(todo, Resources((Node(8, gpus),), 1))
    assert found.makespan == pytest.approx(hours)
    assert found.busy["score"] == pytest.approx(2 * models)
    assert all_of(found) == pytest.approx(gpus * found.makespan)


def test_vllm_answers_the_widest_model_first_and_loads_a_model_once_for_all_its_tasks() -> None:
    wide, narrow = score("wide", 1, gpus=3), score("narrow", 2, loading=0.5)
    other = replace(score("other", 3, loading=0.5), pieces=[replace(narrow.pieces[0], key="other", seconds=3 * HOUR)])
    found = simulate(Todo([], [], [wide, narrow, other], vllm=True), Resources((Node(8, 4),), 1))
    assert found.makespan == pytest.approx(1 + 0.5 + 5 / 4)
    assert found.idle[LOADING] == pytest.approx(4 * 0.5)
    assert found.idle[LARGER] == pytest.approx(1)
    assert all_of(found) == pytest.approx(4 * found.makespan)


def test_losses_cost_what_was_done_since_the_last_checkpoint_and_are_the_same_for_a_seed() -> None:
    todo = Todo([], [point(f"p{i}", 3, saved=0.5 * HOUR) for i in range(8)], [score("s", 4, items=40)])
    resources = Resources((Node(8, 2),) * 2, 1, beside=1)
    quiet, often = simulate(todo, resources), simulate(todo, resources, Losses(2 * HOUR, seed=3))
    again, other = (simulate(todo, resources, Losses(2 * HOUR, seed=seed)) for seed in (3, 4))
    assert often == again != other
    assert quiet.losses == quiet.idle[LOST] == quiet.idle[REDONE] == 0
    assert often.losses
    assert often.restarts
    assert 0 < often.idle[REDONE] <= 0.5 * often.restarts + 0.1 * often.losses * 2
    assert often.makespan > quiet.makespan
    assert all_of(often) == pytest.approx(4 * often.makespan)
    assert often.busy["train"] == pytest.approx(24)


def test_a_longer_way_between_checkpoints_is_done_again() -> None:
    resources, redone = Resources((Node(8, 1),) * 4, 1, beside=0), []
    for saved in (0.1 * HOUR, 2 * HOUR):
        points = [point(f"p{i}", 4, saved=saved) for i in range(8)]
        redone.append(simulate(Todo([], points, []), resources, Losses(3 * HOUR)).idle[REDONE])
    assert redone[1] > 3 * redone[0]


@pytest.mark.parametrize(("text", "seconds"), [("3h", 10800), ("90m", 5400), ("1.5d", 129600), ("45s", 45)])
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text, "--mttf") == seconds


@pytest.mark.parametrize("text", ["soon", "3", "0h", "-1h", "h", "3 weeks"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^--mttf: .* give a duration"):
        seconds_of(text, "--mttf")


@pytest.mark.slow
def test_a_model_larger_than_a_node_and_losses_without_end_are_refused() -> None:
    with pytest.raises(InputError, match="--gpus: 2 on a node; a model that is scored needs 3 of one"):
        simulate(Todo([], [], [score("s", 1, gpus=3)]), Resources((Node(8, 2),) * 2, 1))
    with pytest.raises(InputError, match="--mttf"):
        simulate(Todo([], [point("p", 9)], []), Resources((Node(8, 1),), 1, beside=0), Losses(60))
