"""What is left of a grid, as a simulation needs it: points with their checkpoints, scores with what they wait for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from kdray.cost.estimate import Estimate, StepCost
from kdray.orchestration.pools import Group, Item
from kdray.orchestration.resources import Resources
from kdray.plan.inputs import GenerateInputs, RateInputs
from kdray.plan.steps import Plan, Step
from kdray.spec.points import rank
from kdray.store import Store

BEFORE = ("lens", "teach", "augment", "soften")  # in the order in which a run does them


@dataclass(frozen=True, kw_only=True)
class Piece(Item):
    """So many seconds of an actor that has loaded `model`, which takes `loading` seconds; `gpus` are parts of them
    where points share GPUs.
    """

    seconds: float
    model: Hashable
    loading: float = 0.0
    whole: bool = False  # whether all pieces of its step are one actor's

    @property
    def loads(self) -> Hashable:
        return self.model

    @property
    def bound(self) -> str | None:
        return self.key if self.whole else None


@dataclass(frozen=True)
class PointWork:
    """A point to train, and when in it (in seconds of training) each of its checkpoints is there; those of the least
    `rank` train first.
    """

    name: str
    cost: StepCost
    exports: Mapping[str, float]
    rank: int = 0


@dataclass(frozen=True)
class ScoreWork:
    """A step of `generate` or `measure`: it begins when all it needs is made."""

    name: str
    needs: frozenset[str]
    pieces: Sequence[Piece]
    answers: bool


@dataclass(frozen=True)
class Todo:
    """`before` is what a run does before its points, one after the other; `vllm`: answers come after all points.

    Points that are `aligned` begin when all others have trained, and the `awaited` of the scores are made.
    """

    before: Sequence[StepCost]
    points: Sequence[PointWork]
    scores: Sequence[ScoreWork]
    vllm: bool = False
    aligned: Sequence[PointWork] = ()
    awaited: frozenset[str] = frozenset()


def todo_of(plan: Plan, store: Store, price: Estimate, resources: Resources) -> Todo:
    """What a run of `plan` does, by what it costs; what has no price takes no time."""
    costs = {cost.mark: cost for cost in price.steps}
    names, vllm = _Names(), plan.grid.score.engine == "vllm"
    train, points, aligned = plan.grid.train, list[PointWork](), list[PointWork]()
    for point in plan.points:
        if cost := costs.get(point.train.mark):
            exports = {names[export.mark]: at / train.total * cost.seconds for at, export in point.exports.items()}
            among = aligned if point.point.aligned else points
            among.append(PointWork(point.train.slug, cost, exports, rank(point.point, plan.grid.runtime.priority)))
    made = {name for point in [*points, *aligned] for name in point.exports}
    pairs = [point.train.inputs.pairs for point in plan.points]
    scores: dict[str, ScoreWork] = {}
    for step in [*pairs, *(step for score in plan.scores for step in (score.generate, score.measure))]:
        if step and (cost := costs.get(step.mark)) and (name := names[step.mark]) not in scores:
            needs = (names[needed.mark] for needed in step.inputs.steps)
            memory = None if isinstance(step.inputs, RateInputs) else price.scored_in.get(plan.role(_model(step)))
            units = resources.units_for(cost.gpus, None if vllm else memory)
            wanted = frozenset(each for each in needs if each in made or each in scores)
            scores[name] = ScoreWork(
                name,
                wanted,
                _pieces(names, step, cost, units, cost.gpus * resources.per_gpu),
                step.kind == "generate",
            )
    before = [cost for kind in BEFORE for cost in price.steps if cost.kind == kind]
    awaited = frozenset(names[step.mark] for step in pairs if step and names[step.mark] in scores)
    return Todo(before, points, list(scores.values()), vllm, aligned, awaited)


class _Names(dict[Hashable, str]):
    """A short name for every mark: marks of unresolved steps are long to compare."""

    def __missing__(self, mark: Hashable) -> str:
        self[mark] = f"{len(self)}"
        return self[mark]


def _model(step: Step) -> Step:
    return step.inputs.named["model"]


def _pieces(names: _Names, step: Step, cost: StepCost, units: int, whole: int) -> list[Piece]:
    """By an actor of so many units, where all of a step's GPUs are `whole`: a part of a GPU takes as much longer."""
    piece = Piece(
        key=names[step.mark],
        gpus=units,
        seconds=(cost.seconds - cost.loading) / cost.items * whole / units,
        model=names[_model(step).mark],
        loading=cost.loading,
        whole=not isinstance(step.inputs, GenerateInputs),
    )
    return [piece] * cost.items


def by_model(scores: Sequence[ScoreWork]) -> list[Group]:
    """The pieces in a group for each model, as the stages of a run give them: answers before all else."""
    groups = defaultdict[tuple[bool, Hashable], list[Piece]](list)
    for score in scores:
        groups[not score.answers, score.pieces[0].model].extend(score.pieces)
    return [groups[key] for key in sorted(groups, key=lambda key: key[0])]
