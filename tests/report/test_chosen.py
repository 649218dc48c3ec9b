"""A point's checkpoint is chosen by what it measured in training, and only that one is scored in full."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kdray.artifacts.curve import write_curve
from kdray.artifacts.scores import write_scores
from kdray.plan import Plan, Step, make_plan
from kdray.plan.inputs import AnswersInputs
from kdray.plan.listing import listed_status
from kdray.plan.steps import PointPlan
from kdray.report.chosen import Choices, Seen, choose, steps_of
from kdray.spec.load import load_grid
from kdray.store import Outer, Store
from tests.conftest import TinyGrid

BEST = {"score.checkpoints": "best_heldout", "report.checkpoint": "best_heldout"}
BY_ANSWERS = {"score.checkpoints": "best_answers", "report.checkpoint": "best_answers"}
MakePlan = Callable[[dict[str, Any]], Plan]


@pytest.fixture
def store(tiny_grid: TinyGrid) -> Store:
    return Store(tiny_grid.folder / "store")


@pytest.fixture
def plan(tiny_grid: TinyGrid, store: Store) -> MakePlan:
    return lambda changes: make_plan(load_grid(tiny_grid(changes)), Outer(store.root))


def seal(store: Store, step: Step, write: Callable[[Any], None] = lambda _: None, **facts: Any) -> None:
    attempt = store.begin(step.key, step.payload or {})
    write(attempt.path)
    attempt.seal(**facts)


def train(store: Store, planned: PointPlan, *losses: float) -> None:
    """A point whose checkpoints had these held-out losses."""
    entries = []
    for (at, export), loss in zip(planned.exports.items(), losses, strict=True):
        seal(store, export, examples=int(2 * at))
        entries.append({"step": at, "examples": 2 * at, "tokens": 5, "loss": 1, "ce": 1, "heldout_ce": loss})
    seal(store, planned.train, lambda folder: write_curve(folder, entries))


def answer(store: Store, planned: PointPlan, choices: Choices, **values: float) -> None:
    """Score the answers to held-out rows at the checkpoints `s2` and `s4`."""
    for score in choices.choosing[planned.point]:
        value = values.get(f"s{score.position:g}")
        if value is not None:
            found = {"rougeL": {"value": value, "stderr": 1, "n": 2}}
            seal(store, score.measure, lambda folder, found=found: write_scores(folder, found, [{"example": 0}]))


def wanted(plan: Plan, choices: Choices, planned: PointPlan) -> dict[str, set[float | None]]:
    """The checkpoints at which each task of a point is scored."""
    found: dict[str, set[float | None]] = {task.name: set() for task in plan.grid.score.tasks}
    for score in plan.scores:
        if score.subject == planned.point:
            assert len({choices.wants(step) for step in steps_of(score)}) == 1
            if choices.wants(score.measure):
                found[score.task.name].add(score.position)
    return found


HELD = [{"examples": 2, "heldout_ce": 1.0}, {"examples": 3}, {"examples": 4, "heldout_ce": 1.0}]
HELD += [{"examples": 6, "heldout_ce": float("nan")}]


@pytest.mark.parametrize(
    ("rule", "seen", "at"),
    [
        ("last", {1.0: Seen(), 2.0: Seen()}, 2),
        ("best_heldout", {1.0: Seen(2), 2.0: Seen(4)}, 2),  # of equals the later one
        ("best_heldout", {1.0: Seen(2)}, 1),
        ("best_heldout", {1.0: Seen(2), 2.0: Seen(6)}, 1),  # a loss that is no number is the worst
        ("best_heldout", {1.0: Seen(2), 2.0: Seen(3)}, None),
        ("best_heldout", {1.0: Seen(2), 2.0: Seen(None)}, None),
        ("best_answers", {1.0: Seen(2, 5.0), 2.0: Seen(4, 4.0)}, 1),
        ("best_answers", {1.0: Seen(2, 0.0), 2.0: Seen(4, 0.0)}, 2),
        ("best_answers", {1.0: Seen(2, 5.0), 2.0: Seen(4)}, None),
        ("best_answers", {}, None),
    ],
)
def test_a_choice_waits_for_all_that_it_goes_by(rule: str, seen: dict[float, Seen], at: float | None) -> None:
    assert choose(rule, 2.0, seen, HELD) == at


def test_ids_are_those_of_a_grid_that_scores_all_checkpoints(plan: MakePlan) -> None:
    assert {step.id for step in plan(BEST).steps()} == {step.id for step in plan({}).steps()}


def test_the_checkpoint_with_the_least_heldout_loss_is_scored_once_its_point_has_trained(
    plan: MakePlan, store: Store
) -> None:
    made = plan(BEST)
    first, second, *_ = made.points
    choices = Choices(made, store)
    assert set(map(frozenset, wanted(made, choices, first).values())) == {frozenset({4})}, "the last stands for it"
    step = next(score.measure for score in made.scores if score.subject == first.point and score.position == 4)
    assert [needed.key for needed in choices.before(step)] == [first.train.key]
    train(store, first, 1.0, 2.0)
    train(store, second, 2.0, 1.0)
    assert set(map(frozenset, wanted(made, choices, first).values())) == {frozenset({2})}
    assert set(map(frozenset, wanted(made, choices, second).values())) == {frozenset({4})}
    assert not choices.before(step)


def test_answers_to_heldout_rows_are_scored_at_every_checkpoint_and_all_else_at_the_best(
    plan: MakePlan, store: Store
) -> None:
    made = plan(BY_ANSWERS)
    first, choices = made.points[0], Choices(made, store)
    choosing = [score.measure for score in choices.choosing[first.point]]
    assert len(choosing) == 2
    assert all(isinstance(step.inputs, AnswersInputs) and not choices.before(step.inputs.outputs) for step in choosing)
    train(store, first, 1.0, 2.0)
    other = next(
        s.measure for s in made.scores if s.subject == first.point and s.task.name == "xsum" and s.position == 4
    )
    assert {step.key for step in choices.before(other)} == {first.train.key, *(step.key for step in choosing)}
    answer(store, first, choices, s4=20.0)
    assert wanted(made, choices, first) == {"heldout_loss": {4}, "heldout_answers": {2, 4}, "xsum": {4}}
    assert choices.before(other), "one of them is not answered yet"
    answer(store, first, choices, s2=21.0)
    assert wanted(made, choices, first) == {"heldout_loss": {2}, "heldout_answers": {2, 4}, "xsum": {2}}


def test_what_was_not_chosen_is_neither_missing_nor_paid_for(plan: MakePlan, store: Store) -> None:
    made = plan(BEST)
    for planned in made.points:
        train(store, planned, 1.0, 2.0)
    narrowed = Choices(made, store).narrowed()
    for step in narrowed.steps():
        if not store.get(step.key):
            seal(store, step)
    assert {state for states in listed_status(narrowed, store)["steps"].values() for state in states} == {"done"}
    every = listed_status(made, store)["steps"]
    assert every["measure"]["missing"] > 0
    assert every["student"] == {"done": 8}, "what is not scored is exported all the same"


def test_where_all_are_scored_nothing_waits_for_a_choice(plan: MakePlan, store: Store) -> None:
    made = plan({"report.checkpoint": "best_answers"})
    choices = Choices(made, store)
    assert all(choices.wants(step) and not choices.before(step) for step in made.steps())
    assert choices.of(made.points[0].point) is None
    assert choices.narrowed().scores == made.scores
