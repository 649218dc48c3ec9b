"""What is said of prepared rows beside their limits: rows on both sides, and batches beyond all epochs."""

from __future__ import annotations

from typing import Any

import pytest

from kdray.plan.prepared import prepared_notes
from kdray.store import Store
from tests.plan.conftest import MakePlan

FACTS = {"read": 100, "skipped": 0, "empty": 0, "long": 0, "truncated": 0, "kept": 100, "train": 90, "repeated": 0}
FACTS |= {"unasked": 0}


def notes(plan: MakePlan, store: Store, changes: dict[str, Any], **facts: int) -> list[str]:
    made = plan({"train": {"epochs": 0.5}} | changes)
    assert made.prepare
    attempt = store.begin(made.prepare.key, made.prepare.payload or {})
    (attempt.path / "result").write_text("x")
    attempt.seal(**FACTS | facts)
    return prepared_notes(made, store)


def test_rows_that_ask_nothing_are_told(plan: MakePlan, store: Store) -> None:
    (note,) = notes(plan, store, {"axes.batch": [8]}, unasked=7)
    assert note.startswith("7 of 100 rows ask nothing")


def test_rows_that_are_held_out_and_learned_are_told(plan: MakePlan, store: Store) -> None:
    (note,) = notes(plan, store, {"axes.batch": [8]}, repeated=4)
    assert note.startswith("4 of 10 rows held out are also among those to train on, word for word")


@pytest.mark.parametrize("batch", [45, 46])
def test_a_batch_that_is_more_than_all_epochs_is_told(batch: int, plan: MakePlan, store: Store) -> None:
    """0.5 epochs of 90 rows are 45: the last batch of which a step is no more than that."""
    found = notes(plan, store, {"axes.batch": [8, batch]})
    said = (
        "axes.batch: one step of 46 is 0.511 epochs of 90 rows, and train.epochs 0.5: a point takes no less than a step"
    )
    assert found == ([said] if batch == 46 else [])


def test_steps_are_what_the_file_says_whatever_the_batch(plan: MakePlan, store: Store) -> None:
    assert notes(plan, store, {"axes.batch": [1000], "train": {"steps": 4}}) == []
