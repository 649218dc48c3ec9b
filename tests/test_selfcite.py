"""A real grid with `selfcite`: every checkpoint and the untrained student have it, and weights are dropped after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdray.artifacts.scores import read_rows, read_scores
from tests.here import run_here
from tests.tiny import write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("one_ray")]
SCORE = "{tasks: [{name: heldout_answers, limit: 4, max_new_tokens: 6}], metrics: [selfcite], batch: 2}"


def test_every_checkpoint_has_it_before_its_weights_are_dropped(tmp_path: Path) -> None:
    path = write_grid(
        tmp_path,
        teacher="null",
        axes="{lr: [3.0e-3], batch: [4], alpha: [0]}",
        train="{steps: 4, keep: [2, 4]}",
        score=SCORE,
        runtime=f"{{store: '{tmp_path}/store', checkpoint_every: 2, drop_exports: scored}}",
    )
    plan, store, failed = run_here(path)
    assert not failed
    steps = {score.position: score.measure for score in plan.scores if score.measure.inputs.named.get("model")}
    assert list(steps) == [None, 2, 4]
    for step in steps.values():
        made = store.get(step.key)
        assert made
        scores, counts = read_scores(made.path), made.facts["counts"]
        rows = read_rows(made.path, ["selfcite", "cite_all", "sequences"]).to_pylist()
        assert scores["cite_all"].n == len([row for row in rows if row["cite_all"] is not None]) > 0
        assert counts["sequences"] == sum(row["sequences"] for row in rows) >= 2 * scores["selfcite"].n
        assert scores["cite_all"].n + counts["without_answer"] == 4
    exports = plan.points[0].exports
    weights = {at: [*store.get(step.key).path.glob("*.safetensors")] for at, step in exports.items()}  # type: ignore[union-attr]
    assert (weights[2], len(weights[4])) == ([], 1)
    done = {step.key: store.get(step.key).path for step in steps.values()}  # type: ignore[union-attr]
    assert not run_here(path)[2]
    assert {key: store.get(key).path for key in done} == done  # type: ignore[union-attr]
