"""`why` leads to the field that was changed, however many steps above it lies."""

from __future__ import annotations

import pytest

from kdray.plan import Step
from kdray.plan.why import differences
from kdray.store import Key, Store, fingerprint, io
from tests.conftest import TinyGrid
from tests.plan.conftest import MakePlan


def begin(store: Store, step: Step) -> str:
    """Put a step and all that it needs into the store's records."""
    for needed in step.inputs.steps:
        begin(store, needed)
    store.begin(step.key, step.payload or {})
    return step.key.id


def record(store: Store, **params: object) -> str:
    payload = {"step": "train", "version": 1, "params": params, "inputs": {}}
    store.begin(Key("train", "x", fingerprint(payload)), payload)
    return fingerprint(payload)


def test_the_differing_axis_is_named(plan: MakePlan, store: Store) -> None:
    one, other = (begin(store, point.train) for point in plan().points[:2])
    assert list(differences(store, one, other)) == [("lr", 1e-4, 1e-3)]
    assert list(differences(store, one, one)) == []


def test_inputs_are_followed_to_the_cause(plan: MakePlan, store: Store) -> None:
    one, other = (begin(store, plan({"teacher.tune.lr": lr}).scores[-1].measure) for lr in (1e-3, 2e-3))
    assert list(differences(store, one, other)) == [
        ("outputs > model > point > soft_labels > teacher > lr", 1e-3, 2e-3)
    ]


def test_a_nested_field_is_named_by_its_path(plan: MakePlan, store: Store) -> None:
    one, other = (begin(store, plan({"train.schedule": name}).points[0].train) for name in ("constant", "cosine"))
    assert {field: values for field, *values in differences(store, one, other)} == {
        "schedule.name": ["constant", "cosine"],
        "schedule.params.floor": [None, 0.0],
    }


def test_an_input_that_only_one_has_is_named(plan: MakePlan, store: Store) -> None:
    made = plan({"axes.lr": [1e-3]})
    sft, kd = (begin(store, point.train) for point in made.points)
    assert list(differences(store, sft, kd)) == [
        ("inputs.soft_labels", None, made.heldout_labels.soft_labels.id),
        ("alpha", 0.0, 0.1),
        ("objective.loss.name", None, "cross_entropy"),
        ("objective.loss.version", None, 1),
        ("objective.temperature", None, 1.0),
        ("objective.weighting", None, "sum"),
    ]


def test_points_of_other_labels_differ_in_where_their_data_come_from(plan: MakePlan, store: Store) -> None:
    made = plan({"axes.lr": [1e-3], "axes.alpha": [0], "axes.labels": ["gold", "teacher"]})
    gold, taught = (begin(store, point.train) for point in made.points)
    assert list(differences(store, gold, taught)) == [("data > step", "prepare", "augment")]


def test_the_content_of_a_file_is_a_cause(plan: MakePlan, store: Store, tiny_grid: TinyGrid) -> None:
    one = begin(store, plan().points[0].train)
    tiny_grid.rows("rows.jsonl", [{"instruction": "a", "context": "", "response": "b"}])
    other = begin(store, plan().points[0].train)
    assert [field for field, *_ in differences(store, one, other)] == ["data > source.sha256"]


def test_steps_of_two_kinds_differ_in_that(plan: MakePlan, store: Store) -> None:
    made = plan()
    one, other = begin(store, made.prepare), begin(store, made.points[0].train)
    assert list(differences(store, one, other)) == [("step", "prepare", "train")]


@pytest.mark.parametrize(("x", "y"), [(1, 1.0), (True, 1), ([1], [1.0])])
def test_what_has_two_ids_differs_even_if_python_says_equal(x: object, y: object, store: Store) -> None:
    assert list(differences(store, record(store, a=x), record(store, a=y))) == [("a", x, y)]


def test_an_unknown_id_is_a_key_error(store: Store) -> None:
    known = record(store, a=1)
    for pair in [(known, "0123456789ab"), ("0123456789ab", known), ("*", known)]:
        with pytest.raises(KeyError):
            list(differences(store, *pair))


def test_where_an_input_is_gone_its_ids_are_given(plan: MakePlan, store: Store) -> None:
    plans = [plan({"data.heldout": n}) for n in (2, 3)]
    one, other = (begin(store, made.points[0].train) for made in plans)
    io.delete(store.folder(plans[0].prepare.key))
    assert list(differences(store, one, other)) == [("inputs.data", plans[0].prepare.id, plans[1].prepare.id)]
