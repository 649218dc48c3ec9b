"""When a run did what, told from a store that its writers have left, whether the run is through or not."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.timeline import OPEN, Timeline, draw, timeline_of
from kdray.artifacts.curve import append_step, log_files
from kdray.store import Attempt, Key, Store

STEP = {"step": 1, "examples": 2, "tokens": 9, "loss": 1.0, "ce": 1.0}


def begun(store: Store, kind: str, slug: str, number: int) -> Attempt:
    attempt = store.begin(Key(kind, slug, f"{number:012x}"), {"step": kind})
    if kind == "train":
        append_step(attempt.path, STEP)
    return attempt


def kinds(found: Timeline) -> dict[str, str]:
    return {slug: kind for kind, slug, _, _ in found.spans}


def test_a_run_is_drawn_as_far_as_it_is(tmp_path: Path) -> None:
    store = Store(tmp_path)
    begun(store, "prepare", "data", 0).seal(None)
    begun(store, "train", "lr2-b4-a0-s0", 2)
    early = timeline_of(tmp_path)
    assert kinds(early) == {"data": "prepare", "lr2-b4-a0-s0": OPEN}
    assert early.figures == {}, "nothing has come to an end that counts"
    draw(Figure().subplots(), "early", early)

    trained = begun(store, "train", "lr1-b4-a0-s0", 1)
    trained.seal(log_files(trained.path))
    begun(store, "measure", "lr2-b4-a0-s0-s2-heldout_loss", 3).seal(None)
    begun(store, "measure", "student-heldout_loss", 4).seal(None)
    later = timeline_of(tmp_path)
    assert kinds(later) == {"data": "prepare", "lr2-b4-a0-s0": OPEN, "lr1-b4-a0-s0": "train"}
    assert len(later.scores) == 2
    assert len(later.trained_scores) == 1, "of a checkpoint of a point that has not ended"
    assert set(later.figures) == {"first_score", "last_point", "end"}
    draw(Figure().subplots(), "later", later)
