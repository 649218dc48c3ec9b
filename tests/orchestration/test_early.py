"""Which points ASHA stops, told from what they report: without a run of Ray's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from kdray.artifacts.curve import append_step, log_files
from kdray.cli.progress import Terminal
from kdray.orchestration.early import EarlyStopping, Ranked, early_stopping
from kdray.orchestration.resources import Node, Resources
from kdray.orchestration.work import Work
from kdray.plan import make_plan
from kdray.report.arms import Arm
from kdray.spec import load_grid
from kdray.spec.sections.training import SearchSection
from kdray.store import Control, Locks, Outer, Store
from tests.conftest import TinyGrid

SFT, KD = Arm("gold", 0.0), Arm("gold", 1.0)
RUNGS, TOLD = {10: 0, 20: 1}, {10: "1 epochs", 20: "2 epochs"}


@pytest.fixture
def control(tmp_path: Path) -> Control:
    return Control(tmp_path)


def stopping(control: Control, arms: dict[str, Arm], reduction: int = 2) -> EarlyStopping:
    ranked = {slug: Ranked(slug, arm, RUNGS, TOLD) for slug, arm in arms.items()}
    return EarlyStopping(ranked, SearchSection(name="asha", reduction=reduction), len(RUNGS), control)


def report(asha: EarlyStopping, slug: str, step: int, loss: float) -> str:
    """What a trial of Tune's reports."""
    trial = SimpleNamespace(trial_id=f"trial-{slug}", config={"point": slug})
    return asha.on_trial_result(None, trial, {"step": step, "loss": 1.0, "heldout_ce": loss})


def stopped(control: Control, slugs: str) -> str:
    return "".join(slug for slug in slugs if control.is_stopped(slug))


def test_at_a_rung_the_better_half_goes_on(control: Control) -> None:
    asha = stopping(control, dict.fromkeys("abcd", SFT))
    for slug, loss in zip("abcd", (2.0, 3.0, 1.0, 1.9), strict=True):
        assert report(asha, slug, 10, loss) == "CONTINUE", "Tune would end the trial in the middle of a step"
    assert stopped(control, "abcd") == "b"
    assert control.early("b") == "held-out loss 3.0000 at 1 epochs"
    report(asha, "a", 20, 1.5)
    report(asha, "c", 20, 1.6)
    assert stopped(control, "abcd") == "bc"
    assert control.early("c") == "held-out loss 1.6000 at 2 epochs"


def test_of_three_with_a_reduction_of_three_one_goes_on(control: Control) -> None:
    asha = stopping(control, dict.fromkeys("abc", SFT), reduction=3)
    for slug, loss in zip("abc", (1.0, 1.2, 1.1), strict=True):
        report(asha, slug, 10, loss)
    assert stopped(control, "abc") == "bc"


def test_an_arm_is_never_held_against_another(control: Control) -> None:
    asha = stopping(control, {"a": SFT, "b": KD, "c": SFT, "d": KD})
    for slug, loss in zip("abcd", (1.0, 5.0, 2.0, 4.0), strict=True):
        report(asha, slug, 10, loss)
    assert stopped(control, "abcd") == "c"


def test_what_is_measured_elsewhere_than_at_rungs_decides_nothing(control: Control) -> None:
    asha = stopping(control, dict.fromkeys("ab", SFT))
    report(asha, "a", 10, 1.0)
    report(asha, "b", 15, 9.0)
    trial = SimpleNamespace(trial_id="b", config={"point": "b"})
    assert asha.on_trial_result(None, trial, {"step": 10, "loss": 9.0}) == "CONTINUE"  # a checkpoint without a loss
    assert stopped(control, "ab") == ""


def test_earlier_runs_are_remembered_and_not_judged_again(control: Control) -> None:
    asha = stopping(control, dict.fromkeys("abc", SFT))
    asha.remember("a", [{"step": 9, "loss": 1.0}, {"step": 10, "heldout_ce": 1.0}, {"step": 20, "heldout_ce": 0.5}])
    asha.remember("b", [{"step": 10, "heldout_ce": 2.0}])
    assert stopped(control, "abc") == "", "it went on in its run"
    report(asha, "b", 10, 2.0)  # killed before its next checkpoint, it has come to the rung once more
    assert stopped(control, "abc") == ""
    report(asha, "c", 10, 1.8)
    report(asha, "b", 20, 0.6)
    assert stopped(control, "abc") == "bc"


def test_a_run_knows_the_rungs_of_its_grid_and_what_its_store_has_measured(tiny_grid: TinyGrid) -> None:
    changes = {"search": "asha", "axes.lr": [1e-3, 1e-4, 1e-5], "axes.alpha": [0, 1]}
    plain, grid = (load_grid(tiny_grid(some)) for some in ({}, changes))
    store, outer = Store(grid.runtime.store), Outer(Store(grid.runtime.store).root)
    plan = make_plan(grid, outer)
    assert plan.prepare
    store.begin(plan.prepare.key, plan.prepare.payload or {}).seal(None)
    by_alpha = {alpha: [p.train for p in plan.points if p.point.alpha == alpha] for alpha in (0, 1)}
    (trained, begun, other), kd = by_alpha[0], by_alpha[1]
    for step, loss in ((trained, 2.0), (begun, 1.0)):
        attempt = store.begin(step.key, step.payload or {})
        for i in (1, 2):
            entry = {"step": i, "examples": 2 * i, "tokens": 9, "loss": 1.0, "ce": 1.0}
            append_step(attempt.path, entry | ({"heldout_ce": loss} if i == 2 else {}))
        if step is trained:
            attempt.seal(log_files(attempt.path))
    with Locks() as locks, Terminal(Console(quiet=True)) as progress:
        work = Work(plan, store, outer, locks, progress, Resources((Node(1, 0),), 1))
        asha = early_stopping(work)
        assert asha
        for step in (other, *kd):
            report(asha, step.key.slug, 1, 9.0)  # no rung
            report(asha, step.key.slug, 2, 1.5)
        stopped = [p.train for p in plan.points if work.control.is_stopped(p.train.key.id)]
        assert stopped == [other], "a third goes on: 1.0 does, and all of the other arm are alike"
        assert work.control.early(other.key.id) == "held-out loss 1.5000 at 2 steps"
        work.plan = make_plan(plain, outer)
        assert early_stopping(work) is None
