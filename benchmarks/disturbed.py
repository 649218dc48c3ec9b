"""One run of the small grid under some faults: started, disturbed and started again, until it is done."""

from __future__ import annotations

import contextlib
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.faults import CLUSTERED, ENDED, MOUNTED, PROCESSES, SERVED, STEPS, Fault
from benchmarks.small_grid import (
    EVERY,
    SECONDS,
    Driver,
    changed,
    cut,
    doubled_metrics,
    finished,
    flip,
    title,
    unfinished,
    unsealed,
    write,
)
from benchmarks.surroundings import DAY, Server, full, read_only, shift_times, small_disk
from kdray.store import io
from kdray.store.locks import DONE, current_lock
from kdray.track.address import DATABASE
from tests.orchestration.nodes import Nodes, nodes

LASTS = 15.0  # seconds of a fault that passes, unless the driver ends before
STARTS = 12  # that a run may take, beside one a fault
MOMENTS = ("student", "track")  # phases that are over as soon as they are seen
SOON = dict.fromkeys(("prepare", "annotate", "lens", "soften"), 0.3) | dict.fromkeys(MOMENTS, 0.0)
WITHIN = {"start": 8.0, **SOON}  # seconds after a phase's beginning in which a fault comes; of others one
BOTH, ONE_LESS = "alpha: [0, 1]", "alpha: [0]"
EDITS = ((BOTH, ONE_LESS), (BOTH, "alpha: [1, 0]"), (f"checkpoint_every: {EVERY}", "checkpoint_every: 1"))
WEIGHTS = "checkpoint-*/*.safetensors"
REPORTS = "mean ± sd over"  # what a driver says when it has done its steps
REMOVE = re.compile(r"remove the folder (\S+) and run again")
UNWRITTEN, DAMAGED = "MLflow cannot be written", re.compile(r"\((\S+) is damaged, [^:]+: remove it\)")


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
        for _ in range(STARTS + 2 * len(left)):
            driver, before, met = self.others.pop() if self.others else self.start(), finished(self.store), False
            while left and (fault := self.wait_for(left, driver)):
                left.remove(fault)
                before |= finished(self.store)
                met = True
                self.meet(fault, driver)
                if fault.name in ENDED:
                    break
            code, said = driver.end(), driver.said()
            if code is None:
                self.outcome.stuck.append(said[-500:])
            self.look_for_what_was_redone(before)
            for named in REMOVE.findall(said):
                self.damaged.add(Path(named))
                shutil.rmtree(named, ignore_errors=True)
            if UNWRITTEN in said:
                for named in DAMAGED.findall(said):
                    Path(named).unlink()
            elif code == 0 and not met and not self.others:
                for fault in left:
                    print(f"{fault.name} in {fault.phase}: met nothing", flush=True)
                self.outcome.missed += len(left)
                self.outcome.doubled += doubled_metrics(self.database)
                return
        self.outcome.stuck.append(f"not done after {STARTS} starts: {said[-500:]}")

    @property
    def database(self) -> Path:
        return self.server.database if self.server else self.store / DATABASE

    def new_cluster(self) -> Nodes:
        """A head and another node, each of two cores, until the run's places are given up."""
        cluster = self.places.enter_context(nodes(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(16)))
        cluster.head("--num-cpus=2")
        cluster.add("--num-cpus=2")
        return cluster

    def start(self) -> Driver:
        cluster = self.cluster
        return Driver(self.grid, cluster.environment | {"RAY_ADDRESS": cluster.address} if cluster else None)

    def processes(self, driver: Driver, name: str) -> list[psutil.Process]:
        """Those of that name that work for a driver and those beside it."""
        families = [*(each.family() for each in (driver, *self.others)), self.cluster.family() if self.cluster else []]
        return [process for family in families for process in family if name in title(process)]

    def meet(self, fault: Fault, driver: Driver) -> None:
        """One fault, and the end of the driver if it is one that ends it."""
        steps, begin = self.steps(), time.monotonic()
        self.disturb(fault, driver)
        self.outcome.faults[fault.name] += 1
        self.outcome.phases[fault.phase] += 1
        code = driver.end() if fault.name in ENDED else driver.process.poll()
        print(f"{fault.name} in {fault.phase}: {code} after {time.monotonic() - begin:.0f} s", flush=True)
        self.after(fault, steps)

    def wait_for(self, faults: Collection[Fault], driver: Driver) -> Fault | None:
        """The one of these whose phase is there, and what it aims at; None if the driver ends before."""
        until = time.monotonic() + SECONDS
        while driver.process.poll() is None and time.monotonic() < until:
            for fault in faults:
                if self.is_at_work(fault.phase, driver) and self.is_there(fault, driver):
                    time.sleep(self.dice.random() * WITHIN.get(fault.phase, 1.0))
                    if fault.phase in MOMENTS or self.is_at_work(fault.phase, driver):
                        return fault
            time.sleep(0.03)
        return None

    def is_there(self, fault: Fault, driver: Driver) -> bool:
        """Whether there is what a fault aims at."""
        if fault.name in PROCESSES:
            return bool(self.processes(driver, PROCESSES[fault.name]))
        if fault.name == "checkpoint":
            return bool(self.trained(WEIGHTS))
        if fault.name == "database":  # a server is not to be cut off from its own
            return self.server is None and self.database.is_file()
        return bool(finished(self.store)) or fault.name not in ("flip", "cut")

    def is_at_work(self, phase: str, driver: Driver) -> bool:
        """Whether a driver, or one beside it, is in that phase."""
        drivers = [driver, *self.others]
        if driver.process.poll() is not None:
            return False
        if phase == "start":
            return not any(self.held(kind, drivers) for kind in STEPS) and REPORTS not in driver.said()
        if phase == "track":
            return abs(time.time() - changed(self.database) / 1e9) < 0.2
        if phase == "report":
            return REPORTS in driver.said()
        if phase == "student":  # made by those who train
            return any(changed(path) / 1e9 > driver.since for path in unfinished(self.store, phase))
        return self.held(phase, drivers)

    def held(self, kind: str, drivers: Sequence[Driver]) -> bool:
        """Whether one of these drivers works on a step of that kind."""
        pids = {driver.process.pid for driver in drivers if driver.process.poll() is None}
        locks = [io.read_json(lock) or {} for path in unfinished(self.store, kind) if (lock := current_lock(path))]
        return any(lock.get("pid") in pids and not lock["released"] for lock in locks)

    def disturb(self, fault: Fault, driver: Driver) -> None:
        """The fault itself; a driver that it ends may take its time."""
        name = fault.name
        if name in ("int", "term"):
            driver.process.send_signal(signal.SIGINT if name == "int" else signal.SIGTERM)
        elif name in ("kill", "twice", "checkpoint", "database", "edited"):
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
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):  # it may just have ended
                self.dice.choice(self.processes(driver, PROCESSES[name])).kill()
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
            self.damage_something_finished(fault)

    def passing(self, name: str) -> contextlib.AbstractContextManager[None]:
        """The fault `name`, which is over at the end of the context."""
        if name in MOUNTED:
            return full(self.grid.parent) if name == "full" else read_only(self.store)
        assert self.server
        return self.server.down() if name == "down" else self.server.slow()

    def damage_something_finished(self, fault: Fault) -> None:
        """Something of the fault's phase, if there is any."""
        done = sorted((self.store / fault.phase).glob(f"*/{DONE}")) or sorted(self.store.glob(f"*/*/{DONE}"))
        chosen = self.dice.choice(done)
        self.damaged.add(chosen.parent)
        files = [path for path in chosen.parent.glob("attempt-*/**/*") if path.is_file() and path.stat().st_size > 1]
        if fault.name == "cut":
            cut(self.dice.choice((chosen, self.dice.choice(files))), self.dice)
        else:
            flip(self.dice.choice(files), self.dice)

    def after(self, fault: Fault, steps: dict[Path, int]) -> None:
        """What is done to a store without a driver, and what its points then go on from."""
        if fault.name == "checkpoint" and (found := self.trained(WEIGHTS)):
            flip(found[-1], self.dice)
        if fault.name == "database":
            cut(self.database, self.dice)
        if fault.name == "edited":
            self.edit()
        if fault.name == "head":
            self.cluster = self.new_cluster()
        allowed = 2 if fault.name == "checkpoint" else 1  # the one before the damaged
        for folder, step in steps.items():
            kept = [int(path.parent.name.split("-")[1]) for path in folder.glob("attempt-*/checkpoint-*/manifest.json")]
            if not (folder / DONE).exists() and fault.name in ENDED:
                lost = (step - max(kept, default=0)) / EVERY
                self.outcome.intervals = max(self.outcome.intervals, lost / allowed)

    def edit(self) -> None:
        """Change the grid file as a user might, between two starts."""
        text = self.grid.read_text()
        before, after = self.dice.choice(EDITS)
        self.grid.write_text(text.replace(before, after))
        if after == ONE_LESS:
            smaller = self.start()
            self.wait_for([Fault("edited", "train")], smaller)
            smaller.process.kill()
            smaller.process.wait()
            self.grid.write_text(text)

    def trained(self, files: str) -> list[Path]:
        """What matches in the attempts of points and of the teacher, the newest last."""
        folders = [self.store / kind for kind in ("teach", "train")]
        return sorted((path for folder in folders for path in folder.glob(f"*/attempt-*/{files}")), key=changed)

    def steps(self) -> dict[Path, int]:
        """The steps that what is unfinished has trained."""
        found: dict[Path, int] = {}
        for path in self.trained("metrics.jsonl"):
            if not (path.parents[1] / DONE).exists():
                folder = path.parents[1]
                found[folder] = max(found.get(folder, 0), path.read_bytes().count(b"\n"))
        return found

    def look_for_what_was_redone(self, before: dict[Path, int]) -> None:
        now = finished(self.store)
        for path, stamp in before.items():
            if path not in self.damaged and now.get(path) != stamp:
                self.outcome.redone.append(str(path.relative_to(self.store)))
