"""The steps a grid needs, deduplicated, each with the id of the artifact it makes. No torch, no ray, no network.

    model    fetched, converted from GGUF, or cut          student   an exported checkpoint of a point
    prepare  instruction data as tokens                    generate  a model's answers on a task
    teach    the teacher, fine-tuned                       annotate  answers with their hallucinated spans
    augment  the same data with the teacher's answers      lens      a Lookback Lens of the untrained student
    soften   the teacher's soft labels                     measure   scores of a model on a task
    train    one point                                     retokenise  the data in the tokens of a teacher
    curate   which rows are left of what is often said

A step whose outer references are not resolved yet has no id, and neither have the steps that need it.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Generic, Literal, cast

from typing_extensions import TypeVar

from kdray.plan.inputs import (
    ExportInputs,
    GenerateInputs,
    Inputs,
    MeasureInputs,
    PrepareInputs,
    RetokeniseInputs,
    Softened,
    TrainInputs,
)
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.grid import Grid
from kdray.spec.points import Point
from kdray.spec.refs import Reference
from kdray.spec.sections.base import Use
from kdray.store import Key, Store, fingerprint

LONGEST = 200  # characters of a slug: names of folders, in which an id stands too, have 255 bytes
State = Literal["done", "running", "missing", "unresolved"]
Subject = Point | str  # or a reference model: the student, or a teacher by its name
I_co = TypeVar("I_co", bound=Inputs, covariant=True, default=Inputs)


@dataclass(frozen=True)
class Step(Generic[I_co]):
    """A piece of work that makes one artifact. `payload` is what the id is made of; None while unresolved."""

    kind: str
    slug: str
    payload: dict[str, Any] | None
    inputs: I_co
    source: Reference | None = None
    files: Mapping[str, Reference] = field(
        default_factory=dict
    )  # further ones, by parameter; their content is in the payload

    @cached_property
    def id(self) -> str | None:
        return None if self.payload is None else fingerprint(self.payload)

    @cached_property
    def mark(self) -> Hashable:
        """What two steps that make one artifact have in common: the id or, while there is none, names and inputs."""
        return self.id or (
            self.kind,
            self.slug,
            self.source,
            tuple((name, needed.mark) for name, needed in self.inputs.named.items()),
        )

    @property
    def references(self) -> list[Reference]:
        """All that the step takes from outside."""
        return [*([self.source] if self.source else []), *self.files.values()]

    @property
    def key(self) -> Key:
        assert self.id is not None, f"{self.kind} {self.slug} is unresolved"
        return Key(self.kind, self.slug, self.id)

    @property
    def params(self) -> dict[str, Any]:
        assert self.payload is not None
        return self.payload["params"]

    @property
    def untuned(self) -> Step:
        """The model before it was fine-tuned, if it was."""
        return self.inputs.student if isinstance(self.inputs, TrainInputs) else self

    def state(self, store: Store) -> State:
        return "unresolved" if self.payload is None else store.state(self.key)


@dataclass(frozen=True)
class ScoreStep:
    """One task on one model: the point (or reference model) it belongs to, the checkpoint, and its steps."""

    subject: Subject
    position: float | None  # the checkpoint, in the unit of the training length; None for a reference model
    task: Use
    measure: Step[MeasureInputs]
    generate: Step[GenerateInputs] | None
    decoding: str = ""  # the label of how the answers are made, if any are


@dataclass(frozen=True)
class PointPlan:
    """A point, its training step and its exported checkpoints by position."""

    point: Point
    train: Step[TrainInputs]
    exports: Mapping[float, Step[ExportInputs]]


@dataclass(frozen=True)
class Plan:
    """Everything a grid needs.

    `models` are the student and, by name, the teachers as they label; `heldout_labels` the soft labels that all points'
    held-out scores are measured on: of the first teacher, at the original responses; `read` the grid's rows as teachers
    with other tokens than the student's read them, by name.
    """

    grid: Grid
    models: Mapping[str, Step]
    prepare: Step[PrepareInputs] | None  # None where models are only scored
    heldout_labels: Softened
    points: list[PointPlan]
    scores: list[ScoreStep]
    read: Mapping[str, Step[RetokeniseInputs]] = field(default_factory=dict)

    def role(self, step: Step) -> str:
        """Whose model a step makes or is: `student`, or a teacher's name."""
        marks = ((role, made.mark, made.untuned.mark) for role, made in self.models.items())
        return next((role for role, *own in marks if step.mark in own), "student")

    def steps(self) -> Iterator[Step]:
        """Every step once, inputs before the steps that need them."""
        seen: set[Hashable] = set()

        def walk(step: Step) -> Iterator[Step]:
            if step.mark in seen:
                return
            seen.add(step.mark)
            for needed in step.inputs.steps:
                yield from walk(needed)
            yield step

        inputs = [needed for point in self.points for needed in point.train.inputs.steps]
        prepared = [self.prepare] if self.prepare else []
        for root in [*self.models.values(), *prepared, *inputs]:
            yield from walk(root)
        for point in self.points:
            yield from walk(point.train)
            for export in point.exports.values():
                yield from walk(export)
        for score in self.scores:
            yield from walk(score.measure)


def reading(steps: Iterable[Step], *kinds: type[I_co]) -> list[Step[I_co]]:
    """Those of `steps` that read such inputs."""
    return [cast("Step[I_co]", step) for step in steps if isinstance(step.inputs, kinds)]


def make_step(
    kind: str,
    slug: str,
    params: dict[str, Any] | None,
    inputs: I_co,
    source: Reference | None = None,
    stage: str = "",
    files: Mapping[str, Reference] = MappingProxyType({}),
) -> Step[I_co]:
    """A step, unresolved if its params or any of its inputs are."""
    ids = {name: step.id for name, step in inputs.named.items()}
    payload = None
    if params is not None and None not in ids.values():
        version = declared(declare.Stage, stage or kind).version
        payload = {"step": kind, "version": version, "params": params, "inputs": ids}
    return Step(kind, slug[:LONGEST], payload, inputs, source, files)


def slug_of(text: str) -> str:
    """`text` as it may stand in the name of a folder."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-") or "unnamed"
