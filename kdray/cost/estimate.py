"""What a price is: operations and time of every step that is left of a grid, memory of a GPU, disk."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from kdray.cost.cards import Card
from kdray.cost.memory import Memory
from kdray.cost.share import PROCESS

SCORES = ("generate", "measure")  # kinds of steps
PASSES = 2  # a decoding may hold side by side


@dataclass(frozen=True)
class StepCost:
    """One step: how long it takes so many GPUs of the card, in seconds, and its floating-point operations.

    `mark` is the step's. `loading` seconds are spent on every GPU that takes part; the rest can be dealt out in `items`
    alike. Training resumes from a checkpoint every `saved` seconds, and a `busy` part of its GPUs has rows to work on;
    `sharers` such steps are on each GPU at once.
    """

    kind: str
    gpus: int
    seconds: float
    operations: float
    mark: Hashable = None
    loading: float = 0.0
    items: int = 1
    saved: float = math.inf
    busy: float = 1.0
    sharers: int = 1

    @property
    def gpu_seconds(self) -> float:
        """Of whole GPUs."""
        return self.gpus * self.seconds / self.sharers


@dataclass(frozen=True)
class Estimate:
    """What is left of a grid on one kind of card. `left_out`: what takes time and is not counted."""

    card: Card
    steps: list[StepCost]
    memory: Mapping[str, Memory]  # by kind of step and model
    disk: Mapping[str, float]  # bytes
    labels: Mapping[str, float]  # bytes of soft labels by form
    left_out: list[str] = field(default_factory=list)
    per_gpu: int = 1  # points that share a GPU

    @property
    def gpu_hours(self) -> dict[str, float]:
        """By kind of step."""
        hours: dict[str, float] = defaultdict(float)
        for step in self.steps:
            hours[step.kind] += step.gpu_seconds / 3600
        return dict(hours)

    @property
    def operations(self) -> float:
        """Floating-point operations of all steps."""
        return sum(step.operations for step in self.steps)

    @property
    def points(self) -> list[StepCost]:
        """Of the points alone."""
        return [step for step in self.steps if step.kind == "train"]

    @property
    def scoring_share(self) -> float:
        """What part of the GPU-hours of points and scores the scores take, answers included; 0 where there are none."""
        hours = self.gpu_hours
        scores = sum(hours.get(kind, 0.0) for kind in SCORES)
        return scores / (scores + hours.get("train", 0.0)) if scores else 0.0

    def wall_hours(self, gpus: int) -> float:
        """On so many GPUs; infinite where one step needs more.

        Points and teachers are trained by one group of GPUs each; all else is dealt out. What comes before the points
        is done one kind after the other. Scores fill the GPUs that points leave idle, or come after them, as those of
        the last points must.
        """
        if any(step.gpus > gpus for step in self.steps):
            return math.inf
        before, points, scores, rounds = 0.0, 0.0, 0.0, 1.0
        for kind, size, sharers in {(step.kind, step.gpus, step.sharers): None for step in self.steps}:
            alike = (step for step in self.steps if (step.kind, step.gpus, step.sharers) == (kind, size, sharers))
            times, places = [step.seconds for step in alike], gpus // size * sharers
            longest = max(times) if kind in ("train", "teach") else 0.0
            hours = max(longest, sum(times) / places) / 3600
            if kind == "train":
                points += hours
                rounds = max(1.0, len(times) / places)
            elif kind in SCORES:
                scores += hours
            else:
                before += hours
        idle = max(0.0, points - self.gpu_hours.get("train", 0.0) / gpus)
        return before + points + scores / rounds + max(0.0, scores - scores / rounds - idle)

    @property
    def scored_in(self) -> dict[str, float]:
        """Bytes of a GPU that answering and being scored takes, by the model's role; none where a task is not known."""
        sizes: dict[str, float] = {}
        for what, needed in self.memory.items():
            kind, _, role = what.partition(" ")
            if kind in SCORES:
                sizes[role] = max(sizes.get(role, 0.0), needed.total)
        known = not any(name.startswith("task ") for name in self.left_out)
        return {role: PASSES * size + PROCESS for role, size in sizes.items() if known}

    def too_large(self) -> dict[str, Memory]:
        """What does not fit on the card."""
        return {what: needed for what, needed in self.memory.items() if needed.total > self.card.memory}
