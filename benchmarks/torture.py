"""Faults on a small real grid, again and again: is anything that was finished lost, or a number changed?

    python -m benchmarks.torture [N] [--seed S] [--past K] [--kinds kill,full] [--folder DIR]   (make torture N=50)

The grid has every kind of step on tiny models. It runs once undisturbed. Then it runs under N faults, some to a run,
and is started again by the same command after each, until it is done. A seed says which fault meets which phase; over
a campaign every fault meets every phase. One that takes days goes in pieces: `50 --past 100` goes on behind the first
hundred. Faults:

    kill, int, term     the driver gets SIGKILL, SIGINT, SIGTERM
    twice               SIGKILL, and again as soon as the next start has begun
    power               everything is killed at once, and what was written last is cut to a random length
    worker, trial, controller, actor
                        SIGKILL for one of Ray's processes: a training worker, a Tune trial, Train's controller, an
                        actor that answers or scores
    flip, cut           a byte of a finished step's file is changed; its DONE is cut off
    checkpoint          a byte of the newest resume checkpoint is changed while the driver is dead
    second              another driver is started beside the first
    edited              the driver is killed; a start with one point less goes before the next
    clock               the clock is set back, or was wrong until now: all files are a day younger, or older
    full, readonly      for some seconds no byte can be written into the store; nothing can be changed in it (these need
                        root, to mount)
    down, slow          for some seconds the MLflow server is dead; takes connections and does not answer
    node, head          of a cluster of two nodes the second is lost, and another joins; all are lost with the head, and
                        the cluster is started anew

A phase begins when the first step of that kind is at work. What a run says must be done (a damaged folder to be
removed) is done, as its user would. In the end the same artifacts must be there with the same content, bit for bit, no
finished step may have been made twice, a killed point may have lost one checkpoint interval, and MLflow must have
every metric once.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.small_grid import (
    EVERY,
    SECONDS,
    Driver,
    changed,
    content,
    doubled_metrics,
    finished,
    flip,
    title,
    unsealed,
    write,
)
from benchmarks.surroundings import DAY, Server, can_mount, full, read_only, shift_times, small_disk
from kdray.store.locks import DONE
from kdray.track.address import DATABASE
from tests.orchestration.nodes import Nodes, nodes

PHASES = ("model", "prepare", "lens", "teach", "soften", "train", "student", "generate", "measure")  # as they begin
PROCESSES = {"worker": "TrainWorker", "trial": "ImplicitFunc", "controller": "TrainController", "actor": "MapWorker"}
ENDED = ("kill", "int", "term", "twice", "power", "checkpoint", "edited", "head")  # the driver is gone afterwards
MOUNTED, SERVED = ("full", "readonly"), ("down", "slow")  # what takes a mount, and what an MLflow server
CLUSTERED = ("node", "head")  # what takes a cluster of several nodes
FAULTS = (*ENDED, *PROCESSES, "flip", "cut", "second", "clock", *MOUNTED, *SERVED, "node")
LASTS = 15.0  # seconds of a fault that passes, unless the driver ends before
STARTS = 12  # that a run may take
REMOVE = re.compile(r"remove the folder (\S+) and run again")


@dataclass
class Outcome:
    """What a campaign came to."""

    faults: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    redone: list[str] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)
    intervals: float = 0.0
    doubled: int = 0
    stuck: list[str] = field(default_factory=list)
    missed: int = 0  # faults that came when their phase was over, or what they aim at was not there

    @property
    def held(self) -> bool:
        return not (self.redone or self.mismatches or self.doubled or self.stuck or self.intervals > 1)


@dataclass(frozen=True)
class Fault:
    name: str
    phase: str


class Run:
    """One store under some faults."""

    def __init__(self, folder: Path, faults: list[Fault], dice: random.Random, outcome: Outcome) -> None:
        names = {fault.name for fault in faults}
        self.places = contextlib.ExitStack()
        folder.mkdir(parents=True)
        if "full" in names:
            self.places.enter_context(small_disk(folder))
        self.server = (
            self.places.enter_context(contextlib.closing(Server(folder / "served.db"))) if names & {*SERVED} else None
        )
        self.cluster = self.new_cluster() if names & {*CLUSTERED} else None
        self.grid, self.store = write(folder, self.server and self.server.address), folder / "store"
        self.faults, self.dice, self.outcome = faults, dice, outcome
        self.damaged: set[Path] = set()
        self.others: list[Driver] = []  # that were started beside the first

    def __call__(self) -> None:
        """Start, disturb and start again, until it is done."""
        left, said = list(self.faults), ""
        for _ in range(STARTS + len(left)):
            driver, before = self.start(), finished(self.store)
            while left and (phase := self.wait_for({fault.phase for fault in left}, driver)):
                fault = next(fault for fault in left if fault.phase == phase)
                left.remove(fault)
                before |= finished(self.store)
                self.meet(fault, driver)
                if fault.name in ENDED:
                    break
            code, said = driver.end(), driver.said()
            if None in (code, *(self.others.pop().end() for _ in list(self.others))):
                self.outcome.stuck.append(said[-500:])
            self.look_for_what_was_redone(before)
            for named in REMOVE.findall(said):
                self.damaged.add(Path(named))
                shutil.rmtree(named, ignore_errors=True)
            if code == 0:  # the phases of faults that are left are over
                self.outcome.missed += len(left)
                self.outcome.doubled += doubled_metrics(self.server.database if self.server else self.store / DATABASE)
                return
        self.outcome.stuck.append(f"not done after {STARTS} starts: {said[-500:]}")

    def new_cluster(self) -> Nodes:
        """A head and another node, each of two cores, until the run's places are given up."""
        cluster = self.places.enter_context(nodes(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16)))
        cluster.head("--num-cpus=2")
        cluster.add("--num-cpus=2")
        return cluster

    def start(self) -> Driver:
        cluster = self.cluster
        return Driver(self.grid, cluster.environment | {"RAY_ADDRESS": cluster.address} if cluster else None)

    def processes(self, driver: Driver) -> list[psutil.Process]:
        """All that work for a driver, but itself."""
        return [*driver.family(), *(self.cluster.family() if self.cluster else ())]

    def meet(self, fault: Fault, driver: Driver) -> None:
        """One fault, and the end of the driver if it is one that ends it."""
        steps, begin = self.steps(), time.monotonic()
        if not self.disturb(fault, driver):
            self.outcome.missed += 1
            print(f"{fault.name} in {fault.phase}: nothing to meet", flush=True)
            return
        self.outcome.faults[fault.name] += 1
        self.outcome.phases[fault.phase] += 1
        code = driver.end() if fault.name in ENDED else driver.process.poll()
        print(f"{fault.name} in {fault.phase}: {code} after {time.monotonic() - begin:.0f} s", flush=True)
        self.after(fault, steps)

    def wait_for(self, phases: Collection[str], driver: Driver) -> str | None:
        """The first of these phases of which a step is at work; None if the driver ends before."""
        until = time.monotonic() + SECONDS
        while driver.process.poll() is None and time.monotonic() < until:
            for phase in filter(phases.__contains__, PHASES):
                if self.is_at_work(phase):
                    time.sleep(self.dice.random())
                    return phase if driver.process.poll() is None else None
            time.sleep(0.05)
        return None

    def is_at_work(self, phase: str) -> bool:
        return any(not (path / DONE).exists() for path in (self.store / phase).glob("*-*") if path.is_dir())

    def process(self, name: str, phase: str, driver: Driver) -> psutil.Process | None:
        """One of Ray's of that name, which may come up while a step of the phase is at work."""
        while True:
            if found := [process for process in self.processes(driver) if PROCESSES[name] in title(process)]:
                return self.dice.choice(found)
            if driver.process.poll() is not None or not self.is_at_work(phase):
                return None
            time.sleep(0.05)

    def disturb(self, fault: Fault, driver: Driver) -> bool:
        """Whether there was something that the fault could meet."""
        name = fault.name
        if name in ("int", "term"):
            driver.process.send_signal(signal.SIGINT if name == "int" else signal.SIGTERM)
        elif name in ("kill", "twice", "checkpoint", "edited"):
            driver.process.kill()
            if name == "twice":
                driver.process.wait()
                again = self.start()
                time.sleep(3 * self.dice.random())
                again.kill_all()
        elif name == "power":
            for each in (driver, *self.others):
                each.kill_all()
            if self.cluster:
                self.cluster.close()
                self.cluster = self.new_cluster()
            for path in unsealed(self.store)[-3:]:
                os.truncate(path, self.dice.randint(0, path.stat().st_size))
        elif name in PROCESSES:
            if not (process := self.process(name, fault.phase, driver)):
                return False
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        elif name == "second":
            self.others.append(self.start())
        elif name == "node":
            assert self.cluster
            self.cluster.lose(-1)
            self.cluster.add("--num-cpus=2")
        elif name == "head":
            assert self.cluster
            self.cluster.close()
        elif name == "clock":
            shift_times(self.grid.parent, self.dice.choice((-DAY, DAY)), but=DONE)
        elif name in (*MOUNTED, *SERVED):
            with self.passing(name), contextlib.suppress(subprocess.TimeoutExpired):
                driver.process.wait(LASTS)
        else:
            return self.damage_something_finished(fault)
        return True

    def passing(self, name: str) -> contextlib.AbstractContextManager[None]:
        """The fault `name`, which is over at the end of the context."""
        if name in MOUNTED:
            return full(self.grid.parent) if name == "full" else read_only(self.store)
        assert self.server
        return self.server.down() if name == "down" else self.server.slow()

    def damage_something_finished(self, fault: Fault) -> bool:
        """Something of the fault's phase, if there is any; whether anything is finished."""
        done = sorted((self.store / fault.phase).glob(f"*/{DONE}")) or sorted(self.store.glob(f"*/*/{DONE}"))
        if not done:
            return False
        chosen = self.dice.choice(done)
        self.damaged.add(chosen.parent)
        if fault.name == "cut":
            os.truncate(chosen, self.dice.randint(0, chosen.stat().st_size - 2))
        else:
            files = [path for path in chosen.parent.glob("attempt-*/**/*") if path.is_file() and path.stat().st_size]
            flip(self.dice.choice(files), self.dice)
        return True

    def after(self, fault: Fault, steps: dict[Path, int]) -> None:
        """What is done to a store without a driver, and what its points then go on from."""
        if fault.name == "checkpoint":
            newest = sorted(self.store.glob("train/*/attempt-*/checkpoint-*/*.safetensors"), key=changed)
            if newest:
                flip(newest[-1], self.dice)
        if fault.name == "edited":
            text = self.grid.read_text()
            self.grid.write_text(text.replace("alpha: [0, 1]", "alpha: [0]"))
            smaller = self.start()
            self.wait_for(("train",), smaller)
            smaller.process.kill()
            smaller.process.wait()
            self.grid.write_text(text)
        if fault.name == "head":
            self.cluster = self.new_cluster()
        allowed = 2 if fault.name == "checkpoint" else 1  # the one before the damaged
        for folder, step in steps.items():
            kept = [int(path.parent.name.split("-")[1]) for path in folder.glob("attempt-*/checkpoint-*/manifest.json")]
            if not (folder / DONE).exists() and fault.name in ENDED:
                lost = (step - max(kept, default=0)) / EVERY
                self.outcome.intervals = max(self.outcome.intervals, lost / allowed)

    def steps(self) -> dict[Path, int]:
        """The steps that unfinished points have taken."""
        found: dict[Path, int] = {}
        for path in self.store.glob("train/*/attempt-*/metrics.jsonl"):
            if not (path.parents[1] / DONE).exists():
                folder = path.parents[1]
                found[folder] = max(found.get(folder, 0), path.read_bytes().count(b"\n"))
        return found

    def look_for_what_was_redone(self, before: dict[Path, int]) -> None:
        now = finished(self.store)
        for path, stamp in before.items():
            if path not in self.damaged and now.get(path) != stamp:
                self.outcome.redone.append(str(path.relative_to(self.store)))


def faults(count: int, dice: random.Random, kinds: Sequence[str] = FAULTS, past: int = 0) -> Iterator[Fault]:
    """So many pairs of fault and phase behind the first `past`, all of them before one comes again.

    Those in a row are of different phases: a run meets each of its own but once.
    """
    names, phases = dice.sample(kinds, len(kinds)), dice.sample(PHASES, len(PHASES))
    pairs = [Fault(names[(turn + i) % len(names)], phases[i]) for turn in range(len(names)) for i in range(len(phases))]
    return itertools.islice(itertools.cycle(pairs), past, past + count)


def campaign(count: int, seed: int, folder: Path, together: int, kinds: Sequence[str], past: int = 0) -> Outcome:
    """`count` faults of some kinds, those behind the first `past`, in runs of up to `together`, beside an undisturbed
    one.
    """
    dice, outcome = random.Random(seed), Outcome()
    Run(folder / "undisturbed", [], dice, outcome)()
    expected = content(folder / "undisturbed" / "store")
    planned = list(faults(count, dice, kinds, past))
    for number, begin in enumerate(range(0, count, together)):
        run = Run(folder / f"run-{number}", planned[begin : begin + together], dice, outcome)
        run()
        found = content(run.store)
        same_ids = {name.replace(f"run-{number}", "undisturbed") for name in found} == set(expected)
        outcome.mismatches += (
            [name for name in expected if found.get(name) != expected[name]] if same_ids else ["other ids"]
        )
        print(f"run {number}: {summary(outcome)}", flush=True)
        run.places.close()
        if outcome.held:
            shutil.rmtree(folder / f"run-{number}")
            (folder / f"run-{number}.log").unlink()
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
    parser.add_argument("--past", type=int, default=0, help="leave out so many faults of the seed's campaign")
    parser.add_argument("--together", type=int, default=4, help="faults in one run")
    able = FAULTS if can_mount() else [name for name in FAULTS if name not in MOUNTED]
    parser.add_argument("--kinds", default=",".join(able), help="of faults; by default all that can be had here")
    parser.add_argument("--folder", type=Path, help="where stores go, and stay if something is wrong")
    arguments = parser.parse_args()
    if min(arguments.count, arguments.together, arguments.past + 1) < 1:
        parser.error("N and --together are at least 1, --past 0")
    kinds = arguments.kinds.split(",")
    if unknown := set(kinds) - set(able):
        parser.error(f"--kinds: {', '.join(sorted(unknown))}; here there are {', '.join(able)}")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    outcome = campaign(arguments.count, arguments.seed, folder, arguments.together, kinds, arguments.past)
    for what in ("redone", "mismatches", "stuck"):
        for one in getattr(outcome, what):
            print(f"{what}: {one}")
    print(summary(outcome))
    sys.exit(not outcome.held)


if __name__ == "__main__":
    main()
