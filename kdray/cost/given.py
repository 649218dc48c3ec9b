"""What a price is reckoned from: a plan, its models' shapes, how much there is to do, and on which card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from kdray.cost import memory
from kdray.cost.amounts import Amounts, Asked, asked_by
from kdray.cost.cards import Card
from kdray.cost.decoder import BFLOAT16, FLOAT32, Decoder
from kdray.cost.memory import Training
from kdray.plan.steps import Plan, Step
from kdray.spec.sections.training import Optimiser
from kdray.store import Store

ROOM = 0.8  # of a GPU's memory that weights may take where a model answers or is scored
WIDTH = {"float32": FLOAT32, "bfloat16": BFLOAT16}


@dataclass(frozen=True)
class Given:
    """`decoders` are the models by role: `student`, and teachers by name; `cluster` is how many GPUs there are."""

    plan: Plan
    store: Store
    decoders: Mapping[str, Decoder]
    amounts: Amounts
    card: Card
    cluster: int = 1

    def left(self, step: Step) -> bool:
        """Whether a step is still to be done."""
        return step.state(self.store) != "done"

    def gpus(self, model: Decoder, width: int, quantise: str | None = None) -> int:
        """That a model's weights take, of `width` bytes each, where it answers or is scored."""
        return max(1, math.ceil(memory.weights_of(model, width, quantise) / (ROOM * self.card.memory)))

    def how(self, section: Optimiser) -> Training:
        """What of a section and of the grid's runtime its training takes time and memory by."""
        runtime = self.plan.grid.runtime
        return Training(
            workers=1 if runtime.workers == "auto" else runtime.workers,
            engine=runtime.engine.name,
            stage=runtime.engine.params.get("stage", 0),
            bfloat16=section.dtype == "bfloat16",
            checkpointing=runtime.gradient_checkpointing,
            rank=None if section.method == "full" else section.rank,
            quantised=section.method == "qlora",
        )

    def exported(self) -> float:
        """Bytes of a checkpoint as it is exported."""
        section, student, how = self.plan.grid.train, self.decoders["student"], self.how(self.plan.grid.train)
        alone = section.export.adapters and how.rank
        return WIDTH[section.export.dtype] * (memory.adapters(student, how.rank or 0) if alone else student.weights)

    @cached_property
    def waiting(self) -> list[Step]:
        """All steps that are still to be done."""
        return [step for step in self.plan.steps() if self.left(step)]

    @cached_property
    def asked(self) -> dict[str, Asked | None]:
        """By task: files are read once."""
        tasks = {score.task.name: score.task for score in self.plan.scores}
        return {name: asked_by(task, self.plan.grid, self.amounts) for name, task in tasks.items()}

    @cached_property
    def examined(self) -> Asked | None:
        """What the grid's lens asks the untrained student, if it does and that is known."""
        own = self.plan.grid.lens and self.plan.grid.lens.own
        return asked_by(own.task, self.plan.grid, self.amounts) if own else None
