"""What is left to do of a grid, priced: operations and time by kind of step, memory of a GPU, disk."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from kdray.cost import memory, time
from kdray.cost.amounts import Amounts, Asked, asked_by
from kdray.cost.cards import Card
from kdray.cost.decoder import BFLOAT16, FLOAT32, Decoder
from kdray.cost.memory import Memory, Training
from kdray.plan.inputs import AnswerInputs, AnswersInputs, LikelihoodInputs, RateInputs, SoftenInputs
from kdray.plan.sizes import bytes_per_token
from kdray.plan.steps import Plan, PointPlan, ScoreStep, Step, reading
from kdray.spec import declare
from kdray.spec.components import bind, components, declared
from kdray.spec.points import Point
from kdray.spec.sections.training import Optimiser
from kdray.store import Store

ROOM = 0.8  # of a GPU's memory that weights may take where a model answers or is scored
LONGEST = 2 / 3  # of the longest allowed answer, which a batch's longest takes
SCORES = ("generate", "measure")  # kinds of steps
PARTS = 64  # about so many files of its own has what a step makes of rows that are read, at the least
RESUMED = 2  # checkpoints that a point at work keeps
WIDTH = {"float32": FLOAT32, "bfloat16": BFLOAT16}


@dataclass(frozen=True)
class StepCost:
    """One step: how long it takes so many GPUs of the card, in seconds, and its floating-point operations.

    `mark` is the step's. `loading` seconds are spent on every GPU that takes part; the rest can be dealt out in `items`
    alike. Training resumes from a checkpoint every `saved` seconds, and a `busy` part of its GPUs has rows to work on.
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


@dataclass(frozen=True)
class Estimate:
    """What is left of a grid on one kind of card. `left_out`: what takes time and is not counted."""

    card: Card
    steps: list[StepCost]
    memory: Mapping[str, Memory]  # by kind of step and model
    disk: Mapping[str, float]  # bytes
    labels: Mapping[str, float]  # bytes of soft labels by form
    left_out: list[str] = field(default_factory=list)

    @property
    def gpu_hours(self) -> dict[str, float]:
        """By kind of step."""
        hours: dict[str, float] = defaultdict(float)
        for step in self.steps:
            hours[step.kind] += step.gpus * step.seconds / 3600
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
        for kind, size in {(step.kind, step.gpus): None for step in self.steps}:
            times = [step.seconds for step in self.steps if (step.kind, step.gpus) == (kind, size)]
            longest = max(times) if kind in ("train", "teach") else 0.0
            hours = max(longest, sum(times) / (gpus // size)) / 3600
            if kind == "train":
                points += hours
                rounds = max(1.0, len(times) / (gpus // size))
            elif kind in SCORES:
                scores += hours
            else:
                before += hours
        idle = max(0.0, points - self.gpu_hours.get("train", 0.0) / gpus)
        return before + points + scores / rounds + max(0.0, scores - scores / rounds - idle)

    def too_large(self) -> dict[str, Memory]:
        """What does not fit on the card."""
        return {what: needed for what, needed in self.memory.items() if needed.total > self.card.memory}


def estimate(plan: Plan, store: Store, decoders: Mapping[str, Decoder], amounts: Amounts, card: Card) -> Estimate:
    """The price of all steps of `plan` that are not done.

    `decoders` are the models by role: `student`, and teachers by name.
    """
    return _Pricing(plan, store, decoders, amounts, card).estimate()


@dataclass(frozen=True)
class _Pricing:
    plan: Plan
    store: Store
    decoders: Mapping[str, Decoder]
    amounts: Amounts
    card: Card

    def estimate(self) -> Estimate:
        steps = [
            *self._teachers(),
            *(self._point(point) for point in self.plan.points if self._left(point.train)),
            *self._scores(),
        ]
        return Estimate(self.card, steps, dict(self._memory()), self._disk(), self._labels(), self._left_out())

    def _left(self, step: Step) -> bool:
        return step.state(self.store) != "done"

    def _gpus(self, model: Decoder, width: int, quantise: str | None = None) -> int:
        return max(1, math.ceil(memory.weights_of(model, width, quantise) / (ROOM * self.card.memory)))

    def _role(self, step: Step) -> str:
        """Whose model a step makes or is."""
        return next(
            (role for role, made in self.plan.models.items() if step.mark in (made.mark, made.untuned.mark)), "student"
        )

    # training

    def _how(self, section: Optimiser) -> Training:
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

    def _training(
        self, step: Step, model: Decoder, section: Optimiser, batch: int, kept: float, teacher: Decoder | None
    ) -> StepCost:
        """`kept`: bytes of all that is exported."""
        how, rows = self._how(section), self.amounts.train
        steps = section.steps if section.steps is not None else rows * section.total / batch
        operations = batch * self._row(model, how, teacher)
        busy = min(how.workers, batch)  # the others idle, and wait
        seconds = time.of_training_step(model, how, self.card, operations * how.workers / busy)
        state = (FLOAT32 + memory.ADAM) * (memory.adapters(model, how.rank) if how.rank else model.weights)
        every = self.plan.grid.runtime.checkpoint_every
        written = (steps // every * state + kept) / time.DISK
        return StepCost(
            step.kind,
            how.workers,
            steps * seconds + written,
            steps * operations,
            step.mark,
            saved=every * seconds,
            busy=busy / how.workers,
        )

    def _row(self, model: Decoder, how: Training, teacher: Decoder | None) -> float:
        """Operations of a row: forward and twice as much backward, of frozen weights once; the teacher's part of its
        soft labels.
        """
        tokens, predicted = self.amounts.tokens, self.amounts.response
        passes = 2 if how.rank else 3
        body, head = model.forward(tokens, tokens / 2, 0), model.forward(0, 0, predicted)
        form = declared(declare.Form, self.plan.grid.soft_labels.form.name)
        asked = 0.0
        if teacher:
            asked = (
                teacher.forward(0, 0, predicted)
                if form.head
                else 0.0
                if form.kept
                else teacher.forward(tokens, tokens / 2, predicted)
            )
        return (passes + how.checkpointing) * body + passes * head + asked

    def _teachers(self) -> Iterator[StepCost]:
        grid, amounts = self.plan.grid, self.amounts
        for name, teacher in grid.all_teachers.items():
            if teacher.tune and self._left(self.plan.models[name]):
                model, whole = self.decoders[name], FLOAT32 * self.decoders[name].weights
                yield self._training(self.plan.models[name], model, teacher.tune, teacher.tune.batch, whole, None)
        for step in reading(self._waiting, AnswerInputs):
            model, width, vllm = (
                self.decoders[self._role(step.inputs.teacher)],
                WIDTH[grid.augment.compute],
                grid.augment.engine == "vllm",
            )
            asked = Asked(amounts.train, 1, amounts.prompt, grid.augment.max_new_tokens)
            yield self._answers(step, model, width, grid.augment.batch, asked, vllm, grid.augment.quantise)
        for step in reading(self._waiting, SoftenInputs):
            model, width = self.decoders[self._role(step.inputs.teacher)], WIDTH[grid.soft_labels.compute]
            rows = amounts.train + amounts.heldout
            read, labels = Asked(rows, 1, amounts.tokens, 0), grid.soft_labels
            yield self._reads(step, model, width, labels.batch, read, 0, labels.quantise)

    def _point(self, point: PointPlan) -> StepCost:
        teacher = point.point.teacher or next(iter(self.plan.grid.all_teachers), "")
        member = next(iter(self.plan.grid.ensembles.get(teacher, {teacher: 1})))
        taught = self.decoders.get(member) if point.point.alpha else None
        kept, student = len(point.exports) * self._exported(), self.decoders["student"]
        return self._training(point.train, student, self.plan.grid.train, point.point.batch, kept, taught)

    def _exported(self) -> float:
        """Bytes of a checkpoint as it is exported."""
        section, student, how = self.plan.grid.train, self.decoders["student"], self._how(self.plan.grid.train)
        alone = section.export.adapters and how.rank
        return WIDTH[section.export.dtype] * (memory.adapters(student, how.rank or 0) if alone else student.weights)

    # answers and scores

    @cached_property
    def _waiting(self) -> list[Step]:
        return [step for step in self.plan.steps() if self._left(step)]

    def _answers(
        self,
        step: Step,
        model: Decoder,
        width: int,
        batch: int,
        asked: Asked,
        vllm: bool,
        quantise: str | None = None,
    ) -> StepCost:
        gpus, longest = self._gpus(model, width, quantise), LONGEST * asked.answer
        seconds = time.of_answers(model, self.card, gpus, width, batch, asked.rows, asked.tokens, longest, vllm)
        work = model.forward(asked.rows * (asked.tokens + longest), asked.tokens / 2, asked.rows * longest)
        loading, items = width * model.weights / time.DISK, math.ceil(asked.rows / batch)
        return StepCost(step.kind, gpus, seconds + loading, work, step.mark, loading, items)

    def _reads(
        self,
        step: Step,
        model: Decoder,
        width: int,
        batch: int,
        asked: Asked,
        predicted: float,
        quantise: str | None = None,
    ) -> StepCost:
        gpus, sequences = self._gpus(model, width, quantise), asked.rows * asked.sequences
        seconds = time.of_reading(model, self.card, gpus, width, batch, sequences, asked.tokens, predicted)
        work = model.forward(sequences * asked.tokens, asked.tokens / 2, sequences * predicted)
        loading = width * model.weights / time.DISK
        return StepCost(
            step.kind, gpus, seconds + loading, work, step.mark, loading, min(PARTS, -(-sequences // batch))
        )

    @cached_property
    def _asked(self) -> dict[str, Asked | None]:
        """By task: files are read once."""
        tasks = {score.task.name: score.task for score in self.plan.scores}
        return {name: asked_by(task, self.plan.grid, self.amounts) for name, task in tasks.items()}

    def _model_of(self, score: ScoreStep) -> Decoder:
        return self.decoders["student" if isinstance(score.subject, Point) else score.subject]

    def _scores(self) -> Iterator[StepCost]:
        scoring, seen = self.plan.grid.score, set[object]()
        for score in self.plan.scores:
            if (asked := self._asked[score.task.name]) is None:
                continue
            model, width = self._model_of(score), WIDTH[scoring.dtype]
            if score.generate and score.generate.mark not in seen and self._left(score.generate):
                seen.add(score.generate.mark)
                yield self._answers(score.generate, model, width, scoring.batch, asked, scoring.engine == "vllm")
            if score.measure.mark in seen or not self._left(score.measure):
                continue
            seen.add(score.measure.mark)
            if isinstance(score.measure.inputs, LikelihoodInputs):
                predicted = self.amounts.response if score.measure.inputs.data else asked.tokens
                yield self._reads(score.measure, model, width, scoring.batch, asked, predicted)
            elif isinstance(score.measure.inputs, RateInputs):
                read = replace(asked, tokens=asked.tokens + LONGEST * asked.answer)
                yield self._reads(score.measure, model, width, scoring.batch, read, 0)

    def _left_out(self) -> list[str]:
        unknown = [name for name, asked in self._asked.items() if asked is None]
        judged = {
            score.measure.inputs.models.metric
            for score in self.plan.scores
            if isinstance(score.measure.inputs, AnswersInputs) and score.measure.inputs.models
        }
        return [f"task {name}" for name in sorted(unknown)] + [f"the models of {name}" for name in sorted(judged)]

    # memory and disk

    def _memory(self) -> Iterator[tuple[str, Memory]]:
        grid, longest = self.plan.grid, self.plan.grid.data.max_length
        for name, teacher in grid.all_teachers.items():
            if teacher.tune:
                yield f"teach {name}", self._of_training(self.decoders[name], teacher.tune, teacher.tune.batch)
        if self.plan.points:
            batch = max(point.point.batch for point in self.plan.points)
            yield "train", self._of_training(self.decoders["student"], grid.train, batch)
        width, batch = WIDTH[grid.score.dtype], grid.score.batch
        asked = [task for task in self._asked.values() if task]
        answers = [2 * task.tokens + task.answer for task in asked if task.answer]  # a long article is twice the mean
        read = [task.tokens * 2 for task in asked if not task.answer]
        for role in dict.fromkeys(
            "student" if isinstance(score.subject, Point) else score.subject for score in self.plan.scores
        ):
            model = self.decoders[role]
            gpus = self._gpus(model, width)
            if answers:
                yield f"generate {role}", memory.of_answers(model, gpus, width, batch, max(answers))
            if read:
                yield f"measure {role}", memory.of_likelihoods(model, gpus, width, batch, max(read))
        for step in reading(self.plan.steps(), SoftenInputs):
            role, width = self._role(step.inputs.teacher), WIDTH[grid.soft_labels.compute]
            model = self.decoders[role]
            labels, gpus = grid.soft_labels, self._gpus(model, width, grid.soft_labels.quantise)
            yield (
                f"soften {role}",
                memory.of_answers(model, gpus, width, labels.batch, longest, labels.quantise),
            )
        for step in reading(self.plan.steps(), AnswerInputs):
            role, augment = self._role(step.inputs.teacher), grid.augment
            if augment.quantise:
                model, width = self.decoders[role], WIDTH[augment.compute]
                tokens = grid.data.max_prompt + augment.max_new_tokens
                gpus = self._gpus(model, width, augment.quantise)
                needed = memory.of_answers(model, gpus, width, augment.batch, tokens, augment.quantise)
                yield f"augment {role}", needed

    def _of_training(self, model: Decoder, section: Optimiser, batch: int) -> Memory:
        how, longest = self._how(section), self.plan.grid.data.max_length
        sequences = math.ceil(batch / how.workers)
        sequences = min(sequences, self.plan.grid.runtime.micro_batch or sequences)
        return memory.of_training(model, how, sequences * longest, sequences * longest)

    def _disk(self) -> dict[str, float]:
        grid, student = self.plan.grid, self.decoders["student"]
        left = [sum(map(self._left, point.exports.values())) for point in self.plan.points]
        dropped = grid.runtime.drop_exports is not None
        exports = sum(min(1, count) for count in left) if dropped else sum(left)
        tuned = [self.decoders[name] for name, teacher in grid.all_teachers.items() if teacher.tune]
        how = self._how(grid.train)
        state = (FLOAT32 + memory.ADAM) * (memory.adapters(student, how.rank) if how.rank else student.weights)
        form, sizes = grid.soft_labels.form.name, self._labels()
        return {
            "checkpoints that are scored": exports * self._exported(),
            "checkpoints of a point until they are scored": (max(left) - 1) * self._exported()
            if dropped and any(left)
            else 0,
            "tuned teachers": sum(FLOAT32 * model.weights for model in tuned),
            "soft labels": sizes.get(form, 0.0),
            "to resume a point from": RESUMED * state,
        }

    def _labels(self) -> dict[str, float]:
        """By form, each with its default parameters but the grid's own; the heads that some need, once a teacher."""
        sizes: dict[str, float] = {}
        amounts, own = self.amounts, self.plan.grid.soft_labels.form
        teachers = dict.fromkeys(self._role(step.inputs.teacher) for step in reading(self.plan.steps(), SoftenInputs))
        tokens = (amounts.train + amounts.heldout) * amounts.response
        for name, form in components(declare.Form).items():
            if form.declared.kept:
                params = own.params if name == own.name else bind(declare.Form, name, {}, "soft_labels.form")
                sizes[name] = sum(
                    tokens
                    * bytes_per_token(
                        {"name": name, "params": params}, self.decoders[role].hidden, self.decoders[role].vocabulary
                    )
                    + (BFLOAT16 * self.decoders[role].embedding if form.declared.head else 0)
                    for role in teachers
                )
        return sizes
