"""The torture looks for what it says, and a short one finds nothing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.small_grid import content, finished
from benchmarks.torture import FAULTS, PHASES, Outcome, Run, faults
from kdray.artifacts.scores import write_scores
from kdray.store import Store
from kdray.store.artifact import Key
from tests.benchmarks.test_surroundings import needs_root
from tests.conftest import ROOT


def test_every_fault_meets_every_phase_before_one_comes_again() -> None:
    pairs = len(FAULTS) * len(PHASES)
    found = list(faults(pairs + 1, random.Random(3)))
    assert len(set(found[:pairs])) == pairs
    assert found[pairs] == found[0]
    row = found[5 : 5 + len(PHASES)]
    assert len({fault.phase for fault in row}) == len(PHASES)
    assert [*faults(50, random.Random(3)), *faults(30, random.Random(3), past=50)] == found[:80], "a piece goes on"


def measured(root: Path, value: float) -> Path:
    attempt = Store(root).begin(Key("measure", "a", "0" * 12), {"what": "measured"})
    write_scores(attempt.path, {"ce": {"value": value, "stderr": 0.1, "n": 2}}, [{"example": 0}, {"example": 1}])
    attempt.seal()
    return attempt.path.parent


def test_another_score_is_seen_and_what_is_made_again_too(tmp_path: Path) -> None:
    folder = measured(tmp_path / "a", 1.0)
    assert content(tmp_path / "a") == content(measured(tmp_path / "same", 1.0).parents[1])
    assert content(tmp_path / "a") != content(measured(tmp_path / "other", 1.5).parents[1])
    outcome = Outcome()
    run = Run(tmp_path / "run", [], random.Random(0), outcome)
    run.store, before = tmp_path / "a", finished(tmp_path / "a")
    run.look_for_what_was_redone(before)
    assert outcome.held
    (folder / "DONE").rename(folder / "kept")
    (folder / "DONE").write_bytes((folder / "kept").read_bytes())
    run.look_for_what_was_redone(before)
    assert outcome.redone == [f"measure/{folder.name}"]
    assert not outcome.held


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    "kinds",
    [
        "kill,flip",
        pytest.param("full,readonly,down,slow", marks=[pytest.mark.nightly, needs_root]),
        pytest.param("node,head", marks=pytest.mark.nightly),
    ],
)
def test_a_short_one_loses_nothing(kinds: str, tmp_path: Path) -> None:
    """One of each kind."""
    count = str(kinds.count(",") + 1)
    command = [sys.executable, "-m", "benchmarks.torture", count, "--seed", "17", "--together", count, "--kinds", kinds]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path / "stores")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["faults"] == last["survived"] > 0
