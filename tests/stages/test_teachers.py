"""Teachers as an axis, and an ensemble of them, in a whole grid on tiny models."""

from __future__ import annotations

import pytest

from kdray.artifacts.scores import read_scores
from kdray.report.results import collect
from kdray.report.table import rows_of
from tests.here import run_here
from tests.tiny import write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly]


def test_every_point_learns_from_its_own_teacher(tmp_path):
    here = f"file:{tmp_path}"
    path = write_grid(
        tmp_path,
        teacher="null",
        teachers=f"{{big: {{model: '{here}/teacher'}}, small: {{model: '{here}/student'}}}}",
        ensembles="{mix: {big: 0.9, small: 0.1}}",
        train="{steps: 3}",
        axes="{lr: [3.0e-3], batch: [4], alpha: [0, 1]}",
        score="{tasks: [heldout_loss], batch: 3}",
    )
    plan, store, failed = run_here(path)
    assert failed == {}
    rows = [row.label for row in rows_of(collect(plan, store))]
    assert rows == [
        "SFT",
        "KD 1 (big)",
        "KD 1 (small)",
        "KD 1 (mix)",
        "untrained student",
        "teacher big",
        "teacher small",
    ]
    kl = {
        getattr(score.subject, "teacher", score.subject): read_scores(store.get(score.measure.key).path)["kl"].value
        for score in plan.scores
    }
    # the yardstick is the first teacher: closest to it is who learned from it alone, then who did for the most part
    assert kl["big"] < kl["mix"] < kl["small"]
