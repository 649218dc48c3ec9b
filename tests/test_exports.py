"""A sweep that keeps adapters alone, scores the checkpoint that each point chooses and drops the others, in one store
with a sweep that keeps and scores everything.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from kdray.artifacts.scores import read_scores
from kdray.plan import Plan
from kdray.report.chosen import Choices
from kdray.report.results import collect
from kdray.store import Store, io
from kdray.store.locks import DONE
from tests.here import run_here
from tests.tiny import write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly, pytest.mark.usefixtures("one_ray")]
WHOLE = {
    "teacher": "null",
    "axes": "{lr: [3.0e-3, 1.0e-3], batch: [4], alpha: [0]}",
    "train": "{steps: 8, keep: [2, 4, 8], method: lora, rank: 4}",
}
TASKS = "tasks: [heldout_loss, {name: heldout_answers, limit: 6, max_new_tokens: 8}], batch: 3, references: []"


def grid(folder: Path, rule: str, *, adapters: bool, drop: bool) -> Path:
    export = ", export: {adapters: true}" if adapters else ""
    runtime = f"{{store: '{folder}/store', checkpoint_every: 2{', drop_exports: scored' if drop else ''}}}"
    changes = {
        "train": WHOLE["train"].replace("}", f"{export}}}"),
        "score": f"{{{TASKS}, checkpoints: {rule}}}",
        "report": f"{{checkpoint: {rule if rule != 'all' else 'best_answers'}}}",
        "runtime": runtime,
    }
    return write_grid(folder, **(WHOLE | changes))


def measured(plan: Plan, store: Store) -> dict[tuple[str, float | None, str], dict[str, float]]:
    """By point, checkpoint and task: the scores."""
    found: dict[tuple[str, float | None, str], dict[str, float]] = {}
    for score in plan.scores:
        if made := store.get(score.measure.key):
            slug = getattr(score.subject, "slug", str(score.subject))
            values = {name: value.value for name, value in read_scores(made.path).items()}
            found.setdefault((slug, score.position, score.task.name), {}).update(values)
    return found


def sealed(store: Store) -> dict[str, int]:
    return {
        str(folder): (folder / DONE).stat().st_mtime_ns for _, folder in store.folders() if (folder / DONE).is_file()
    }


def test_a_sweep_that_keeps_little_has_the_numbers_of_one_that_keeps_all(tmp_path: Path) -> None:
    plan, store, failed = run_here(grid(tmp_path, "all", adapters=False, drop=False))
    assert not failed
    expected, finals = measured(plan, store), collect(plan, store)

    plan, store, failed = run_here(grid(tmp_path, "best_answers", adapters=True, drop=True))
    assert not failed
    found, choices = measured(plan, store), Choices(plan, store)
    chosen = {each.point: choices.of(each.point) for each in plan.points}
    for point, at in chosen.items():
        final = finals.final(point)
        assert final
        assert final.position == at
        assert {where[1] for where in found if where[::2] == (point.slug, "heldout_loss")} == {at}
        assert {where[1] for where in found if where[::2] == (point.slug, "heldout_answers")} == {2, 4, 8}
    assert len(found) == len(plan.points) * 4
    for where, values in found.items():
        assert values == pytest.approx(expected[where], abs=1e-5), where
    weights = {
        (planned.point, at): [path.name for path in store.get(step.key).path.glob("*.safetensors")]  # type: ignore[union-attr]
        for planned in plan.points
        for at, step in planned.exports.items()
    }
    assert weights == {
        (point, at): ["adapter_model.safetensors"] if at == chosen[point] else [] for point, at in weights
    }

    before = sealed(store)
    *_, failed = run_here(grid(tmp_path, "best_answers", adapters=True, drop=True))
    assert not failed
    assert sealed(store) == before, "nothing is made again because weights are gone"

    plan, store, failed = run_here(grid(tmp_path, "all", adapters=True, drop=True))
    assert len(failed) == len(plan.points) * 2, "the losses of the two checkpoints that were dropped"
    assert all("remove" in reason for reason in failed.values())
    first = plan.points[0]
    io.delete(store.folder(first.train.key))
    plan, store, failed = run_here(grid(tmp_path, "all", adapters=True, drop=True))
    assert len(failed) == 2, "those of the other point"
    for where, values in measured(plan, store).items():
        assert values == pytest.approx(expected[where], abs=1e-5), where
    assert {at for slug, at, task in measured(plan, store) if (slug, task) == (first.point.slug, "heldout_loss")} == {
        2,
        4,
        8,
    }
