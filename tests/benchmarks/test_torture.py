"""The torture looks for what it says, and a short one finds nothing."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.disturbed import Outcome, Run
from benchmarks.faults import FAULTS, MEETS, PHASES, SERVED, Fault, faults, in_runs, met_before
from benchmarks.small_grid import content, finished, tracked
from kdray.artifacts.scores import write_scores
from kdray.store import Store
from kdray.store.artifact import Key
from kdray.track.mirror import Mirror
from tests.benchmarks.test_surroundings import needs_root
from tests.conftest import ROOT
from tests.track.bench import Bench

POSSIBLE = {Fault(name, phase) for name in FAULTS for phase in MEETS.get(name, PHASES)}


@pytest.mark.parametrize("kinds", [FAULTS, ("kill", "flip"), ("worker",)])
def test_every_fault_meets_every_phase_before_one_comes_again(kinds: tuple[str, ...]) -> None:
    pairs = {pair for pair in POSSIBLE if pair.name in kinds}
    found = list(faults(len(pairs) + 1, random.Random(3), kinds))
    assert set(found[:-1]) == pairs
    assert found[-1] == found[0]


def test_a_campaign_goes_on_with_what_no_output_says_was_met(tmp_path: Path) -> None:
    first = list(faults(30, random.Random(3)))
    said = [f"{fault.name} in {fault.phase}: 0 after 1 s" for fault in first]
    said[9] = f"{first[9].name} in {first[9].phase}: met nothing"
    said.insert(20, "run 3: {}")  # what comes behind is of a run that was cut off
    (tmp_path / "log").write_text("\n".join(said))
    met = met_before([tmp_path / "log"])
    assert met == {*first[:20]} - {first[9]}
    again = list(faults(len(POSSIBLE), random.Random(4), met=met))
    assert set(again) == POSSIBLE - met
    assert set(faults(9, random.Random(4), met=POSSIBLE)) < POSSIBLE, "once all are met they come again"


def test_a_run_meets_each_of_its_phases_once() -> None:
    planned = list(faults(len(POSSIBLE), random.Random(3)))
    runs = list(in_runs(planned, 5))
    assert Counter(fault for run in runs for fault in run) == Counter(planned)
    assert all(0 < len(run) == len({fault.phase for fault in run}) <= 5 for run in runs)
    assert len(runs) < 60
    together = [{fault.name for fault in run} for run in runs]
    assert not [names for names in together if "database" in names and names & {*SERVED}]


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


@pytest.mark.slow
def test_what_mlflow_has_of_runs_is_compared(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.finish()
    Mirror(bench.plan, bench.store).finish()
    before = tracked(bench.database)
    assert before[str(bench.point(0).train.id)] == 1
    assert before[f"{bench.point(0).train.id} status"] == "FINISHED"
    assert before[f"{bench.point(0.1).train.id} held_rougeL 0"] == 10.1
    for change in (
        "UPDATE metrics SET value = 3 WHERE rowid = (SELECT max(rowid) FROM metrics)",
        "DELETE FROM metrics WHERE rowid = (SELECT max(rowid) FROM metrics)",
        "UPDATE runs SET lifecycle_stage = 'deleted' WHERE rowid = (SELECT max(rowid) FROM runs)",
        "UPDATE tags SET value = 'false' WHERE key = 'kdray.in_grid'",
    ):
        with sqlite3.connect(bench.database) as connection:
            connection.execute(change)
        after = tracked(bench.database)
        assert after != before, change
        before = after


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
