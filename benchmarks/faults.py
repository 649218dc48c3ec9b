"""The faults of a campaign, the phases of a run, and which meets which in what order."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

STEPS = ("model", "prepare", "annotate", "lens", "teach", "soften", "train", "student", "generate", "measure")
PHASES = ("start", *STEPS, "track", "report")
TRAINED = ("teach", "train", "student", "track")  # while points or a teacher train
PROCESSES = {"worker": "TrainWorker", "trial": "ImplicitFunc", "controller": "TrainController", "actor": "MapWorker"}
ENDED = ("kill", "int", "term", "twice", "power", "checkpoint", "database", "edited", "head")  # the driver is gone
MOUNTED, SERVED = ("full", "readonly"), ("down", "slow")  # what takes a mount, and what an MLflow server
CLUSTERED = ("node", "head")  # what takes a cluster of several nodes
FAULTS = (*ENDED, *PROCESSES, "flip", "cut", "second", "clock", *MOUNTED, *SERVED, "node")
MEETS = {  # the others meet every phase
    "worker": TRAINED,
    "controller": TRAINED,
    "trial": TRAINED[1:],  # a teacher's training is none
    "actor": ("annotate", "lens", "soften", "train", "student", "generate", "measure"),
    "checkpoint": ("teach", "train", "student", "generate", "measure", "track"),
    "database": PHASES[PHASES.index("train") :],  # MLflow has nothing before
    "flip": PHASES[2:],  # something is finished
    "cut": PHASES[2:],
}
MET = re.compile(r"^(\w+) in (\w+): (?!met nothing)", re.MULTILINE)  # in a campaign's output


@dataclass(frozen=True)
class Fault:
    """A fault by name, and the phase that it is to meet."""

    name: str
    phase: str


def faults(
    count: int, dice: random.Random, kinds: Sequence[str] = FAULTS, met: Collection[Fault] = ()
) -> Iterator[Fault]:
    """So many pairs of fault and phase but those that were `met`, all of them before one comes again."""
    names, phases = dice.sample(kinds, len(kinds)), dice.sample(PHASES, len(PHASES))
    rows, columns = range(max(len(names), len(phases))), range(len(phases))
    pairs = [Fault(names[(row + column) % len(names)], phases[column]) for row in rows for column in columns]
    possible = [pair for pair in dict.fromkeys(pairs) if pair.phase in MEETS.get(pair.name, PHASES)]
    left = [pair for pair in possible if pair not in met] or possible
    return itertools.islice(itertools.cycle(left), count)


def in_runs(planned: Iterable[Fault], together: int) -> Iterator[list[Fault]]:
    """All of these, up to so many a run; those of a run are of different phases, and go with each other."""
    left = list(planned)
    while left:
        run: dict[str, Fault] = {}
        for fault in left:
            if len(run) < together and not any(_exclude(fault, other) for other in run.values()):
                run.setdefault(fault.phase, fault)
        for fault in run.values():
            left.remove(fault)
        yield list(run.values())


def _exclude(one: Fault, other: Fault) -> bool:
    """Whether MLflow would have to be a server for the one and a file for the other."""
    return any(a.name == "database" and b.name in SERVED for a, b in ((one, other), (other, one)))


def met_before(outputs: Iterable[Path]) -> set[Fault]:
    """The pairs that campaigns say in their output to have met, in runs that came to their end."""
    ended = (path.read_text().rpartition("\nrun ")[0] for path in outputs)
    return {Fault(*found) for text in ended for found in MET.findall(text)}
