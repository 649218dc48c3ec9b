"""A run in simulated time: points in the order and number that Tune is given, scores by the pools that a run has."""

from __future__ import annotations

import random
from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from kdray.orchestration.pools import Pools, deal_out, in_rows, longest_first
from kdray.orchestration.resources import Resources
from kdray.simulate.actors import TimedActors
from kdray.simulate.clock import Clock
from kdray.simulate.given import Losses
from kdray.simulate.machines import Machines, Places
from kdray.simulate.todo import PointWork, ScoreWork, Todo, by_model
from kdray.spec.errors import InputError

BACK = 600.0  # seconds until a node is replaced that was lost
RESTART = 120.0  # seconds until a point trains again once it has a place: processes, weights, its checkpoint
MOST_LOSSES = 20_000  # with more nothing would ever be done

BATCH = "workers that a batch cannot fill"
CHECKPOINTS = "scoring waits for checkpoints"
ANSWERS = "points wait for answers to learn from"
POINTS_TAIL = "the points' tail"
SCORING_TAIL = "the scoring's tail"
LARGER = "models larger than the room that is left"
LOADING = "loading weights"
LOST = "restarts after losses"
REDONE = "done again after losses"


class Hours(defaultdict[str, float]):
    """Of GPUs, by what they go into; none of what is not named."""

    def __init__(self, by: Mapping[str, float] = MappingProxyType({})) -> None:
        super().__init__(float, by)


@dataclass
class Outcome:
    """What came of a run. Hours of all GPUs together, `makespan` and `first_point` of the clock."""

    gpus: int
    points_beside: int
    makespan: float = 0.0
    first_point: float = 0.0
    busy: Hours = field(default_factory=Hours)  # by kind of step
    idle: Hours = field(default_factory=Hours)  # by cause
    before: Hours = field(default_factory=Hours)  # of these, what is idle before the first point
    losses: int = 0  # nodes
    restarts: int = 0  # of points

    @property
    def utilisation(self) -> float:
        """Busy GPU-hours in those that there are from the first point to the last score."""
        span = self.gpus * (self.makespan - self.first_point)
        return (self.busy["train"] + self.busy["score"]) / span if span else 0.0


@dataclass
class _Running:
    """A point on its GPUs: it had so many seconds of training behind it, and goes on at `begins`."""

    point: PointWork
    places: Places
    done: float
    begins: float


def simulate(todo: Todo, resources: Resources, losses: Losses | None = None) -> Outcome:
    """What a run of `todo` on a cluster comes to.

    Raises:
        InputError: a model is larger than a node, or nodes are lost faster than anything is done.
    """
    needed = max((cost.gpus for cost in todo.before if cost.kind != "teach"), default=0)
    needed = max([needed, *(-(-score.pieces[0].gpus // resources.per_gpu) for score in todo.scores)])
    if needed > (largest := max(node.gpus for node in resources.nodes)):
        raise InputError("--gpus", f"{largest} on a node", f"a model that is scored needs {needed} of one")
    return _Simulation(todo, replace(resources, beside=0) if todo.vllm else resources, losses).run()


def _in_order(points: Sequence[PointWork]) -> deque[tuple[PointWork, float]]:
    """As they train, with the seconds of it that are behind each already."""
    by_name = {point.name: point for point in points}
    order = longest_first(
        {name: point.cost.seconds for name, point in by_name.items()},
        {name: point.rank for name, point in by_name.items()},
    )
    return deque((by_name[name], 0.0) for name in order)


class _Simulation:
    def __init__(self, todo: Todo, resources: Resources, losses: Losses | None) -> None:
        self.todo, self.resources, self.losses = todo, resources, losses
        self.clock, self.machines = Clock(), Machines(resources.units)
        self.units = sum(resources.units)  # in which all is counted, until it is told in GPUs
        self.outcome = Outcome(resources.gpus, resources.points_beside)
        self.waiting = _in_order(todo.points)
        self.later = _in_order(todo.aligned)
        self.running: list[_Running] = []
        self.left = len(self.waiting) + len(self.later)  # points
        self.pools = Pools(self._start, resources, lambda: resources.scoring(self.training))
        self.started: list[TimedActors] = []
        self.made, self.pieces_left = set[str](), Counter[str]()
        self.scores: dict[str, ScoreWork] = {score.name: score for score in todo.scores}
        self.readers: dict[str, list[ScoreWork]] = {}
        self.unmet = {score.name: len(score.needs) for score in todo.scores}
        for score in todo.scores:
            for name in score.needs:
                self.readers.setdefault(name, []).append(score)
        self.ready = [score for score in todo.scores if not score.needs]
        self.answering = False  # by vLLM, on all GPUs

    def run(self) -> Outcome:
        for cost in self.todo.before:
            self._before(
                cost.kind, cost.gpus * self.resources.per_gpu, cost.seconds, cost.loading, cost.items, cost.busy
            )
        self.outcome.first_point = self.clock.now
        if self.losses and self._left():
            for node in range(len(self.machines.size)):
                self._doom(node, random.Random(f"{self.losses.seed} {node}"))
        self._settle()
        while self._left():
            before, upcoming = self.clock.now, self.clock.next
            assert upcoming is not None, "nothing is due, and not all is done"
            self._account(upcoming - before)
            self.clock.tick()
            self._settle()
        self.outcome.makespan = self.clock.now
        return self._in_hours()

    @property
    def training(self) -> int:
        """Points that train, or wait for a place: those that are aligned do not before their time."""
        return self.left - len(self.later)

    def _left(self) -> bool:
        return bool(self.left or self.scores)

    def _before(self, kind: str, gpus: int, seconds: float, loading: float, items: int, busy: float) -> None:
        """A step of what comes before the points: the teacher on its GPUs, all else dealt out item by item."""
        own, wall, spent = gpus * seconds * busy, seconds, 0.0  # `spent` on loading weights
        if kind != "teach":
            actors = min(items, self.resources.actors(gpus))
            wall = loading + -(-items // actors) * (seconds - loading) / items
            own, spent = gpus * (seconds - loading), actors * gpus * loading
            self.outcome.before[LOADING] += spent
        rest = self.units * wall - own - spent
        unfilled = gpus * seconds * (1 - busy)
        self.outcome.busy[kind] += own
        self.outcome.before[BATCH] += unfilled
        self.outcome.before[f"waiting for {kind}"] += rest - unfilled
        self.clock.now += wall

    # what is decided, in the words of a run

    def _settle(self) -> None:
        """Give work to whoever has none, until nothing changes."""
        changed = True
        while changed:
            self._start_points()
            self._begin_ready()
            for actors in self.started:
                actors.go_on()
            changed = False
            for key, _ in self.pools.finished():
                changed = True
                self.pieces_left[key] -= 1
                if not self.pieces_left[key]:
                    self._make(key)
            if not self.left and self.todo.vllm and not self.answering:
                self._answer_by_vllm()
        self._start_points()  # where actors have gone

    def _start_points(self) -> None:
        if not self.training and self.todo.awaited <= self.made:
            self.waiting, self.later = self.later, self.waiting
        while self.waiting and len(self.running) < self.resources.points_beside:
            point, done = self.waiting[0]
            places = self.machines.take(point.cost.gpus, self.resources.on_one_node)
            if places is None:
                return
            self.waiting.popleft()
            running = _Running(point, places, done, self.clock.now + (RESTART if done else 0.0))
            self.running.append(running)
            head = running.begins - self.clock.now - done
            for name, at in point.exports.items():
                if at > done:
                    self.clock.after(head + at, lambda name=name, it=running: self._export(it, name))
            self.clock.after(head + point.cost.seconds, lambda it=running: self._end(it))

    def _start(self, size: int, gpus: int) -> TimedActors:
        actors = TimedActors(size, gpus, self.clock, self.machines, self._spend)
        self.started.append(actors)
        return actors

    def _begin_ready(self) -> None:
        ready = [score for score in self.ready if not (self.todo.vllm and (score.answers or self.left))]
        if not ready:
            return
        self.ready = [score for score in self.ready if score not in ready]
        for score in ready:
            self.pieces_left[score.name] = len(score.pieces)
        for group in in_rows(by_model(ready)):
            for _ in self.pools.put(group):
                raise AssertionError("too large: seen before")

    def _answer_by_vllm(self) -> None:
        """All GPUs, the models that need most of them first; of those that need as many, as many at once as there is
        room for engines, longest first.
        """
        self.answering, wall = True, 0.0
        widths = defaultdict[int, dict[Hashable, tuple[float, float]]](dict)  # of each model: loading, and its own
        for score in self.todo.scores:
            if score.answers:
                first, own = score.pieces[0], sum(piece.seconds for piece in score.pieces)
                before = widths[first.gpus].get(first.model, (0.0, 0.0))[1]
                widths[first.gpus][first.model] = first.loading, before + own
        for gpus, models in sorted(widths.items(), reverse=True):
            engines, used = [0.0] * self.resources.actors(gpus), 0.0  # when each is free
            longest = sorted(models.values(), key=lambda each: -each[1])
            for (loading, own), count in zip(longest, deal_out(len(engines), len(longest)), strict=True):
                free = sorted(range(len(engines)), key=engines.__getitem__)[:count]
                end = engines[free[-1]] + loading + own / count
                for one in free:
                    engines[one] = end
                self._spend("score", own * gpus)
                self._spend("loading", loading * count * gpus)
                used += own + loading * count
            seconds, fit = max(engines), len(engines) * gpus
            self.outcome.idle[LARGER] += seconds * (self.units - fit)
            self.outcome.idle[SCORING_TAIL] += seconds * fit - used * gpus
            wall += seconds
        self.clock.after(wall, self._answered)

    def _answered(self) -> None:
        for score in self.todo.scores:
            if score.answers:
                self._make(score.name)

    # what happens

    def _export(self, running: _Running, name: str) -> None:
        if running in self.running and name not in self.made:
            self._make(name)

    def _end(self, running: _Running) -> None:
        if running not in self.running:
            return  # it was lost
        self.running.remove(running)
        self.machines.give(running.places)
        self.left -= 1
        self._trained(running, running.point.cost.seconds)
        for name in running.point.exports:
            if name not in self.made:
                self._make(name)

    def _make(self, name: str) -> None:
        self.made.add(name)
        self.scores.pop(name, None)
        for score in self.readers.get(name, ()):
            self.unmet[score.name] -= 1
            if not self.unmet[score.name]:
                self.ready.append(score)

    def _trained(self, running: _Running, until: float) -> None:
        """A point has got on to so many seconds of training that count."""
        cost, seconds = running.point.cost, max(0.0, until - running.done)
        self._spend("train", cost.gpus * seconds * cost.busy)
        self.outcome.idle[BATCH] += cost.gpus * seconds * (1 - cost.busy)
        self.outcome.idle[LOST] += cost.gpus * (RESTART if running.done else 0.0)

    def _spend(self, what: str, seconds: float) -> None:
        if what in ("train", "score"):
            self.outcome.busy[what] += seconds
        else:
            self.outcome.idle[{"loading": LOADING, "redone": REDONE}[what]] += seconds

    # losses

    def _doom(self, node: int, dice: random.Random) -> None:
        assert self.losses
        self.clock.after(dice.expovariate(1 / self.losses.mttf), lambda: self._lose(node, dice))

    def _lose(self, node: int, dice: random.Random) -> None:
        self.outcome.losses += 1
        if self.outcome.losses > MOST_LOSSES:
            raise InputError("--mttf", "nodes are lost before anything is done", "a longer one, or fewer nodes a point")
        for running in [each for each in self.running if node in each.places]:
            self.running.remove(running)
            self.machines.give(running.places)
            self.outcome.restarts += 1
            cost = running.point.cost
            reached = running.done + max(0.0, self.clock.now - running.begins)
            kept = max(running.done, reached // cost.saved * cost.saved)
            begun = RESTART if running.done else 0.0
            self._trained(running, kept)
            # Where it is lost before it trained at all, less than a whole start was spent.
            self.outcome.idle[LOST] -= cost.gpus * min(begun, max(0.0, running.begins - self.clock.now))
            self._spend("redone", cost.gpus * (reached - kept))
            self.waiting.appendleft((running.point, max(kept, 1e-9)))
        for actors in self.started:
            actors.lose(node)
        self.machines.away.add(node)
        self.clock.after(BACK, lambda: self._return(node, dice))

    def _return(self, node: int, dice: random.Random) -> None:
        self.machines.away.discard(node)
        self._doom(node, dice)

    # what is idle, and why

    def _account(self, seconds: float) -> None:
        """The GPUs that nobody uses for so long."""
        idle = self.outcome.idle
        used = sum(each.point.cost.gpus for each in self.running)
        if self.answering and any(score.answers for score in self.scores.values()):
            return
        free = self.units - used - sum(actors.busy for actors in self.started)
        away = min(free, self.machines.gpus_away())
        unplaced = sum(point.cost.gpus for point, done in self.waiting if done)
        again = min(free - away, unplaced)
        idle[LOST] += seconds * (away + again)
        free -= away + again
        if any(self.pools.waiting.values()) or any(actors.queue for actors in self.started):
            idle[LARGER] += seconds * free
        elif not self.left:
            idle[SCORING_TAIL] += seconds * free
        elif not self.training:
            idle[ANSWERS] += seconds * free
        else:
            places = max(0, self.resources.points_beside - self.training) * self.resources.workers
            idle[POINTS_TAIL] += seconds * min(free, places)
            idle[CHECKPOINTS] += seconds * (free - min(free, places))

    def _in_hours(self) -> Outcome:
        found = self.outcome
        found.makespan, found.first_point = found.makespan / 3600, found.first_point / 3600
        for cause, seconds in found.before.items():
            found.idle[cause] += seconds
        each = 3600 * self.resources.per_gpu
        found.idle, found.before, found.busy = (_hours(by, each) for by in (found.idle, found.before, found.busy))
        return found


def _hours(seconds: Mapping[str, float], each: float) -> Hours:
    """`each`: seconds of a unit in an hour of a GPU."""
    return Hours({name: value / each for name, value in seconds.items() if value > 1e-6})
