"""On-policy points in a whole grid on tiny models, beside word-level KD on the data's own responses."""

from __future__ import annotations

import pytest

from kdray.artifacts.curve import read_curve
from kdray.plan.progress import training_status
from kdray.report.results import collect
from kdray.report.table import rows_of
from tests.here import run_here
from tests.tiny import write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly]


def test_shares_of_on_policy_steps_are_arms_of_a_grid(tmp_path):
    path = write_grid(
        tmp_path,
        teacher=f"{{model: 'file:{tmp_path}/teacher'}}",
        soft_labels="{form: online}",
        objective="{loss: jsd, weighting: convex, sampling: {max_new_tokens: 12}}",
        train="{steps: 6}",
        axes="{lr: [3.0e-3], batch: [4], alpha: [1], labels: [gold, student], on_policy: [0, 0.5, 1]}",
        score="{tasks: [heldout_loss], batch: 3}",
    )
    plan, store, failed = run_here(path)
    assert failed == {}
    results = collect(plan, store)
    arms = ["KD 1", "on-policy 0 KD 1", "on-policy 0.5 KD 1", "on-policy KD 1"]
    assert [row.label for row in rows_of(results)][:4] == arms
    made = [store.get(point.train.key) for point in plan.points]
    assert all(made)
    gold, never, some, always = (read_curve(artifact) for artifact in made if artifact)
    assert never == gold, "it is word-level KD"
    sampled = [["sampled_length" in step for step in curve] for curve in (never, some, always)]
    assert not any(sampled[0])
    assert {*sampled[1]} == {True, False}
    assert all(sampled[2])
    assert all(1 <= step["sampled_length"] <= 12 for step in always)
    assert [step["tokens"] for step in always] != [step["tokens"] for step in gold]
    shares = [artifact.facts.get("sampling_share") for artifact in made if artifact]
    assert shares[:2] == [None, 0.0]
    assert 0 < shares[2] < 1
    status = training_status(plan.points[3].train, store)
    assert status.sampled_length == pytest.approx(sum(step["sampled_length"] for step in always) / 6)
    assert status.shares
    assert sum(status.shares.values()) == pytest.approx(1)
