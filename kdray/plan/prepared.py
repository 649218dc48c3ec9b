"""What there is to be said of a grid's prepared rows, before anything learns from them and in the report."""

from __future__ import annotations

from collections.abc import Iterator

from kdray.plan.limits import limit_notes
from kdray.plan.sizes import training_rows
from kdray.plan.steps import Plan
from kdray.store import Store


def prepared_notes(plan: Plan, store: Store) -> list[str]:
    """A line each; none before the rows are there."""
    artifact = plan.prepare and plan.prepare.id and store.get(plan.prepare.key)
    if not artifact:
        return []
    data, facts = plan.grid.data, artifact.facts
    notes = limit_notes(facts, data.max_prompt, data.max_length)
    if unasked := facts.get("unasked"):  # an older kdray counted neither these nor the next ones
        notes.append(f"{unasked} of {facts['kept']} rows ask nothing: their instruction and context are empty")
    if repeated := facts.get("repeated"):
        notes.append(
            f"{repeated} of {facts['kept'] - facts['train']} rows held out are also among those to train on, word for"
            " word: what is measured on them is partly what was learned. Leave out double rows"
        )
    return [*notes, *_long_steps(plan, training_rows(plan, store))]


def _long_steps(plan: Plan, rows: int | None) -> Iterator[str]:
    """Where a batch is more than all epochs together: a point then takes its one step, and goes beyond them."""
    length = plan.grid.train
    if rows is None or length.unit != "epochs":
        return
    for batch in sorted({point.point.batch for point in plan.points if not point.point.aligned}):
        if batch > length.total * rows:
            yield (
                f"axes.batch: one step of {batch} is {batch / rows:.3g} epochs of {rows} rows, and train.epochs"
                f" {length.total:g}: a point takes no less than a step"
            )
