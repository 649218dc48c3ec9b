"""What all stages share in one run: the plan and the store, which steps are ours to do now, and what failed."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.markup import escape

from kdray.artifacts.source import AcrossTokens, LabelSource
from kdray.orchestration.progress import Progress
from kdray.orchestration.resources import Resources
from kdray.plan import Plan, Step, reading
from kdray.plan.inputs import (
    AnswersInputs,
    ExportInputs,
    GenerateInputs,
    Inputs,
    LikelihoodInputs,
    RateInputs,
    Softened,
    TrainInputs,
)
from kdray.report.chosen import Choices
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.store import Artifact, Attempt, Control, Locks, Outer, Store, io
from kdray.store.store import ERRORS

if TYPE_CHECKING:
    from kdray.orchestration.crew import Crew

I = TypeVar("I", bound=Inputs)  # noqa: E741
M = TypeVar("M", GenerateInputs, LikelihoodInputs)
WAIT = 0.5  # seconds between looks at a lock


def weights_read_by(step: Step) -> Step[ExportInputs] | None:
    """The exported checkpoint whose weights a step reads, if it does: kept answers are scored without them, but by a
    metric that asks the model.
    """
    if not isinstance(step.inputs, GenerateInputs | LikelihoodInputs | RateInputs | AnswersInputs):
        return None
    model = step.inputs.model
    return next(iter(reading([model], ExportInputs)), None) if model else None


@dataclass
class Work:
    """One run of a plan. `after` is called whenever something new may be worth mirroring, `failing` with a line about
    every failure that is said.

    `expected` is what points take, by their steps' ids and in any unit; `scored_in` is the memory in bytes that
    answering and being scored takes, by the model's role. Both are empty where no price is known.
    """

    plan: Plan
    store: Store
    outer: Outer
    locks: Locks
    progress: Progress
    resources: Resources
    after: Callable[[], None] = lambda: None
    failing: Callable[[str], None] = lambda text: None
    failed: dict[str, str] = field(default_factory=dict)  # by the step's id; those that are `stopped` too
    stopped: set[str] = field(default_factory=set)
    expected: Mapping[str, float] = field(default_factory=dict)
    scored_in: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def choices(self) -> Choices:
        """Which checkpoints are scored."""
        return Choices(self.plan, self.store)

    def needs(self, step: Step) -> list[Step]:
        """All that must be done before the step: what it reads, and what its checkpoint is chosen by."""
        return [*step.inputs.steps, *self.choices.before(step)]

    @cached_property
    def crew(self) -> Crew:
        """The actors of this run."""
        from kdray.orchestration.crew import Crew  # Ray Data is loaded once Ray is up

        return Crew()

    @cached_property
    def control(self) -> Control:
        """What is asked of this run."""
        return Control(self.store.root)

    @property
    def scratch(self) -> Path:
        """A folder for what this run needs no longer than itself."""
        return self.store.root / "scratch" / self.locks.owner

    def folder(self, step: Step) -> Path:
        """The folder of a finished step's files."""
        artifact = self.store.get(step.key)
        assert artifact is not None, f"{step.kind} {step.slug} is not done"
        return artifact.path

    def among(self, step: Step[TrainInputs]) -> tuple[Path, str] | None:
        """Which rows a point trains on, if not all: the folder of the choice, and its name there."""
        return (self.folder(step.inputs.among), step.params["rows"]) if step.inputs.among else None

    def origin(self, model: Step) -> Path:
        """The folder of the model that a model is trained from, or its own: tokenizer and window are the same."""
        known = (made for made in self.plan.models.values() if made.key == model.key)
        return self.folder(next(known, self.plan.models["student"] if self.plan.points else model).untuned)

    def once_an_origin(self, steps: Iterable[Step[M]]) -> list[Step[M]]:
        """Of the missing steps one for all models of an origin that are asked the same."""
        found: dict[tuple[str, Path], Step[M]] = {}
        for step in self.missing(steps):
            found.setdefault((json.dumps(step.params, sort_keys=True), self.origin(step.inputs.model)), step)
        return list(found.values())

    def gpus_for(self, model: Step, dtype: str, quantise: str | None = None) -> int:
        """How many GPUs a finished model takes to answer or be scored; while points share them, how many parts."""
        if not self.resources.gpu_memory:
            return self.resources.units_for(1, None)
        import torch

        from kdray.models.adapters import base_of
        from kdray.models.load import weight_bytes

        weights = weight_bytes(base_of(self.folder(model)), getattr(torch, dtype), quantise)
        return self.resources.units_for(self.resources.gpus_for(weights), self.scored_in.get(self.plan.role(model)))

    def soft_labels(self, inputs: Softened, params: Mapping[str, Any]) -> tuple[LabelSource, ...]:
        """Where a step with such parameters gets soft labels from: nowhere, one teacher, or the members of an
        ensemble.
        """
        sources, across = [], None
        if inputs.across:
            loss = declared(declare.Loss, params["objective"]["loss"]["name"])
            across = AcrossTokens(str(self.folder(inputs.across)), params["align"], not loss.any_vocabulary)
        for needed in inputs.sources:
            made = needed.params if inputs.soft_labels else params["soft_labels"]
            sources.append(
                LabelSource(
                    str(self.folder(needed)),
                    made["form"],
                    made["compute"],
                    made.get("temperature", 1.0),
                    quantise=made.get("quantise"),
                    across=across,
                )
            )
        weights = params.get("weights", [1.0] * len(sources))
        return tuple(replace(source, weight=weight) for source, weight in zip(sources, weights, strict=True))

    def missing(self, steps: Iterable[Step[I]]) -> list[Step[I]]:
        """The steps that are neither done nor failed nor of a checkpoint that was not chosen; those whose inputs failed
        are marked failed.
        """
        open_steps = []
        for step in {step.key: step for step in steps}.values():
            if step.key.id in self.failed or self.store.get(step.key) or not self.choices.wants(step):
                continue
            broken = self._broken_input(step)
            if broken:
                self.fail(step, f"needs {broken.kind} {broken.slug}", quiet=True)
                if broken.key.id in self.stopped:
                    self.stopped.add(step.key.id)
            elif lost := self._lost(step):
                first = lost not in self.failed.values()
                self.fail(step, lost, quiet=not first)
            else:
                open_steps.append(step)
        return open_steps

    def is_dropped(self, step: Step) -> bool:
        """Whether a step reads the weights of a checkpoint that were dropped."""
        export = weights_read_by(step)
        made = export and self.store.get(export.key)
        return bool(made and made.dropped)

    def _lost(self, step: Step) -> str | None:
        """Why a step cannot be done that reads dropped weights; None while they may still be exported once more, by a
        point that has not trained to its end.
        """
        if not self.is_dropped(step) or (export := weights_read_by(step)) is None:
            return None
        train = export.inputs.point
        if not self.store.get(train.key) and train.key.id not in self.failed:
            return None
        return (
            f"needs the weights of {export.slug}, dropped once they were scored (runtime.drop_exports): to train that"
            f" point again remove {self.store.folder(train.key)}"
        )

    def _broken_input(self, step: Step) -> Step | None:
        """The first failed step among all that `step` still waits for."""
        for needed in self.needs(step):
            if self.store.get(needed.key):
                continue
            if needed.key.id in self.failed:
                return needed
            if broken := self._broken_input(needed):
                return broken
        return None

    @contextmanager
    def claim(self, steps: Iterable[Step[I]], at_most: int | None = None) -> Iterator[list[tuple[Step[I], Attempt]]]:
        """New attempts at the missing steps that nobody else works on; waits while others hold all of them.

        Empty once nothing is missing. A step that is still not done after the block counts as failed.
        """
        wanted = list(steps)
        claimed: list[tuple[Step[I], Attempt]] = []
        told = False
        while not claimed and (pending := self.missing(wanted)):
            for step in pending[:at_most] if at_most else pending:
                if attempt := self._try(step):
                    claimed.append((step, attempt))
            if not claimed:
                if not told:
                    self.progress.say(f"waiting for {self.holder(pending[0])}")
                told = True
                time.sleep(WAIT)
        try:
            yield claimed
            for step, _ in claimed:
                if not self.store.get(step.key) and step.key.id not in self.failed:
                    self.fail(step, "ended without a result")
        finally:
            for _, attempt in claimed:
                self.locks.release(attempt.folder)

    def claim_ready(self, steps: Iterable[Step[I]]) -> list[tuple[Step[I], Attempt]]:
        """New attempts at the missing steps whose inputs are all there and that nobody else works on; does not wait.

        The caller releases their locks.
        """
        ready = [step for step in self.missing(steps) if all(self.store.get(made.key) for made in self.needs(step))]
        return [(step, attempt) for step in ready if not self.is_dropped(step) and (attempt := self._try(step))]

    def holder(self, step: Step) -> str:
        """Who works on a step, for a message."""
        return self.locks.holder(self.store.folder(step.key))

    def each(self, steps: Iterable[Step[I]]) -> Iterator[tuple[Step[I], Attempt]]:
        """An attempt at every missing one of `steps`, claimed for as long as the caller is at it; one after the
        other.
        """
        for step in steps:
            with self.claim([step]) as claimed:
                yield from claimed

    def fail(self, step: Step, reason: str, quiet: bool = False) -> None:
        """Remember that a step failed; the run goes on with what does not need it."""
        self.failed[step.key.id] = reason
        if not quiet:
            self.progress.say(f"[red]failed[/] {step.kind} {step.slug}: {escape(reason)}")
            self.failing(f"failed {step.kind} {step.slug}: {reason}")

    def keep_error(self, what: str, error: Exception) -> str:
        """What an error that nobody foresaw is, in a line that names the file where its traceback is kept."""
        lines = str(error).strip().splitlines()
        said = ": ".join(filter(None, (type(error).__name__, lines[0] if lines else "")))
        path = self.store.root / ERRORS / f"{what}-{self.locks.owner[:8]}.txt"
        try:
            io.put(path, "".join(traceback.format_exception(error)).encode(errors="backslashreplace"), durable=False)
        except OSError as why:  # a full disk: what went wrong first is still to be said
            return f"{said} (its traceback cannot be kept: {why.strerror})"
        return f"{said} (the traceback is in {path})"

    def stop(self, step: Step) -> None:
        """Leave a step, and with it all that needs it: somebody asked for that, so that nothing has failed."""
        self.stopped.add(step.key.id)
        self.fail(step, "stopped", quiet=True)

    def take_up(self) -> None:
        """Count no step as stopped any more: what still is will be found again."""
        while self.stopped:
            self.failed.pop(self.stopped.pop(), None)

    def seal(self, step: Step, attempt: Attempt, files: list[Path] | None = None, **facts: object) -> Artifact:
        """Finish a step."""
        artifact = attempt.seal(files, **facts)
        self.locks.release(attempt.folder)
        return artifact

    def _try(self, step: Step) -> Attempt | None:
        folder = self.store.folder(step.key)
        folder.mkdir(parents=True, exist_ok=True)
        if not self.locks.try_acquire(folder):
            return None
        if self.store.get(step.key):  # finished by another driver while we waited
            self.locks.release(folder)
            return None
        assert step.payload is not None
        return self.store.begin(step.key, step.payload)
