"""How far a grid is, which points ended early and why, and what each kind of step has cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from kdray.artifacts.notes import ended_early
from kdray.plan.steps import Plan, Step
from kdray.report.arms import arm_of
from kdray.report.chosen import Choices
from kdray.report.costs import costs
from kdray.report.page.evidence import Evidence
from kdray.store import Artifact, Store
from kdray.store.done import ATTEMPT
from kdray.store.store import RECORD

STATES = ("done", "running", "missing", "unresolved")


@dataclass
class Kind:
    """All steps of one kind: how many there are in each state, and what those that are done took."""

    name: str
    states: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    seconds: float = 0.0
    bytes: int = 0
    hosts: set[str] = field(default_factory=set)

    @property
    def mean(self) -> float:
        """Seconds a step."""
        return self.seconds / self.states["done"] if self.states["done"] else 0.0


@dataclass(frozen=True)
class Trouble:
    """A point without all of its scores: what has become of it, and why."""

    point: str
    arm: str
    state: str
    reason: str


@dataclass(frozen=True)
class Progress:
    """The steps by kind, the points that lack something, and what decodings cost beside greedy."""

    kinds: list[Kind]
    troubles: list[Trouble]
    decodings: list[str]

    @property
    def seconds(self) -> float:
        return sum(kind.seconds for kind in self.kinds)

    @property
    def complete(self) -> bool:
        return all(not kind.states[state] for kind in self.kinds for state in STATES[1:])


def progress_of(evidence: Evidence, store: Store) -> Progress:
    """Read the states of all steps, and what the store knows of those that are done."""
    kinds: dict[str, Kind] = {}
    plan = Choices(evidence.plan, store).narrowed()
    for step in plan.steps():
        kind = kinds.setdefault(step.kind, Kind(step.kind))
        kind.states[step.state(store)] += 1
        artifact = store.get(step.key) if step.id else None
        if artifact:
            kind.seconds += float(artifact.facts.get("seconds", 0.0))
            kind.bytes += sum(f["bytes"] for name, f in artifact.done["files"].items() if name not in artifact.dropped)
            kind.hosts.add(str(artifact.facts.get("host", "")))
    return Progress(
        list(kinds.values()), list(_troubles(evidence, plan, store)), list(costs(evidence.plan.scores, store))
    )


def _troubles(evidence: Evidence, plan: Plan, store: Store) -> Iterable[Trouble]:
    wanted: dict[object, list[Step]] = {}
    for score in plan.scores:
        wanted.setdefault(score.subject, []).append(score.measure)
    for planned in evidence.plan.points:
        state, point = planned.train.state(store), planned.point
        arm = arm_of(point).name
        if state == "done":
            missing = sum(step.state(store) != "done" for step in wanted.get(point, []))
            if missing:
                yield Trouble(
                    point.slug, arm, "not all scored", f"{missing} of {len(wanted[point])} measurements are missing"
                )
            continue
        steps = len(evidence.results.curves.get(point, []))
        reason = _why_ended(store, planned.train) if planned.train.id else None
        if early := evidence.results.early.get(point):
            yield Trouble(point.slug, arm, "stopped early", f"{early}; {steps} steps; see search in the grid file")
        elif reason:
            yield Trouble(point.slug, arm, "diverged", reason)
        elif state == "running":
            yield Trouble(point.slug, arm, "running", f"step {steps}")
        elif planned.train.id and (store.folder(planned.train.key) / RECORD).is_file():
            yield Trouble(
                point.slug, arm, "not finished", f"stopped or failed after {steps} steps; the same command goes on"
            )
        else:
            yield Trouble(point.slug, arm, "not run", "the same command runs it")


def _why_ended(store: Store, step: Step) -> str | None:
    """Why the newest attempt at a point cannot go on."""
    attempts = sorted(store.folder(step.key).glob(f"{ATTEMPT}*"), key=lambda path: path.name)
    return ended_early(attempts[-1]) if attempts else None


def artifacts_of(evidence: Evidence, store: Store) -> list[tuple[Step, Artifact | None]]:
    """Every step with its artifact, if it is done."""
    return [(step, store.get(step.key) if step.id else None) for step in evidence.plan.steps()]


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 12 min, 3.4 h, 2.1 days."""
    for unit, size, digits in (("days", 86400.0, 1), ("h", 3600.0, 1), ("min", 60.0, 0)):
        if seconds >= size * (2 if unit == "days" else 1):
            return f"{seconds / size:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


def bytes_of(count: float) -> str:
    """Bytes as a person says them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
