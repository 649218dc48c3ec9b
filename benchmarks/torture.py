"""Faults on a small real grid, again and again: is anything that was finished lost, or a number changed?

    python -m benchmarks.torture [N] [--seed S] [--met LOG ...] [--kinds kill,full] [--folder DIR]   (make torture N=50)

A small grid of tiny models runs once undisturbed. Then it runs under N faults, some to a run, and is started again by
the same command after each, until it is done. A seed says which fault meets which phase; over a campaign every fault
meets every phase in which there is something for it to meet. One that takes hours goes in pieces: `--met` leaves out
what the output of earlier pieces says was met. Faults:

    kill, int, term     the driver gets SIGKILL, SIGINT, SIGTERM
    twice               SIGKILL, and again as soon as the next start has begun
    power               everything is killed at once, and what was written last is cut to a random length
    worker, trial, controller, actor
                        SIGKILL for one of Ray's processes: a training worker, a Tune trial, Train's controller, an
                        actor that answers or scores
    flip, cut           a byte of a finished step's file is changed; its DONE or another of its files is cut off
    checkpoint          a byte of the newest resume checkpoint is changed while the driver is dead
    database            the file that MLflow's runs are in is cut off while the driver is dead
    second              another driver is started beside the first
    edited              the driver is killed; before the next start a point is taken out, and comes back at the one
                        after, or points are put into another order, or checkpoints are to be more frequent
    clock               the clock is set back, or was wrong until now: all files are a day younger, or older
    full, readonly      for some seconds no byte can be written into the store; nothing can be changed in it (these need
                        root, to mount)
    down, slow          for some seconds the MLflow server is dead; takes connections and does not answer
    node, head          of a cluster of two nodes the second is lost, and another joins; all are lost with the head, and
                        the cluster is started anew

A phase is there while a driver works on a step of that kind; `start` is before its first, `track` while it writes to
MLflow, `report` what comes behind the last step. What a run says must be done (a damaged folder to be removed) is done,
as its user would. In the end the same artifacts must be there with the same content, bit for bit, no finished step may
have been made twice, a killed point may have lost one checkpoint interval, and MLflow must have the same runs with the
same metrics, each once.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks.disturbed import Outcome, Run
from benchmarks.faults import FAULTS, MOUNTED, Fault, faults, in_runs, met_before
from benchmarks.small_grid import content, log_files, tracked
from benchmarks.surroundings import can_mount


def campaign(
    count: int, seed: int, folder: Path, together: int, kinds: Sequence[str], met: Collection[Fault] = ()
) -> Outcome:
    """So many faults of some kinds, but what was `met`, in runs of up to `together`, beside an undisturbed one."""
    dice, outcome = random.Random(seed), Outcome()
    undisturbed = Run(folder / "undisturbed", [], dice, outcome)
    undisturbed()
    expected = content(undisturbed.store) | tracked(undisturbed.database)
    for number, planned in enumerate(in_runs(faults(count, dice, kinds, met), together)):
        run = Run(folder / f"run-{number}", planned, dice, outcome)
        run()
        found = content(run.store) | tracked(run.database)
        outcome.mismatches += [name for name in found | expected if found.get(name) != expected.get(name)]
        print(f"run {number}: {summary(outcome)}", flush=True)
        run.places.close()
        if outcome.held:
            shutil.rmtree(folder / f"run-{number}")
            for log in log_files(run.grid.parent):
                log.unlink()
    return outcome


def summary(outcome: Outcome) -> str:
    """One line of JSON."""
    return json.dumps(
        {
            "faults": outcome.faults.total(),
            "survived": outcome.faults.total() - len(outcome.stuck),
            "finished_work_redone": len(outcome.redone),
            "intervals_lost_max": outcome.intervals,
            "score_mismatches": len(outcome.mismatches),
            "doubled_metrics": outcome.doubled,
            "missed": outcome.missed,
            "phases": dict(outcome.phases),
            "kinds": dict(outcome.faults),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=20, help="faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--met", type=Path, nargs="+", default=[], help="outputs of earlier pieces of the campaign")
    parser.add_argument("--together", type=int, default=4, help="faults in one run")
    able = FAULTS if can_mount() else [name for name in FAULTS if name not in MOUNTED]
    parser.add_argument("--kinds", default=",".join(able), help="of faults; by default all that can be had here")
    parser.add_argument("--folder", type=Path, help="where stores go, and stay if something is wrong")
    arguments = parser.parse_args()
    if min(arguments.count, arguments.together) < 1:
        parser.error("N and --together are at least 1")
    if missing := [str(path) for path in arguments.met if not path.is_file()]:
        parser.error(f"--met: no file {missing[0]}")
    kinds = arguments.kinds.split(",")
    if unknown := set(kinds) - set(able):
        parser.error(f"--kinds: {', '.join(sorted(unknown))}; here there are {', '.join(able)}")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    outcome = campaign(arguments.count, arguments.seed, folder, arguments.together, kinds, met_before(arguments.met))
    for what in ("redone", "mismatches", "stuck"):
        for one in getattr(outcome, what):
            print(f"{what}: {one}")
    print(summary(outcome))
    sys.exit(not outcome.held)


if __name__ == "__main__":
    main()
