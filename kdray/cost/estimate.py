"""What is left to do of a grid, priced: operations and time by kind of step, memory of a GPU, disk."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from kdray.cost import memory, time
from kdray.cost.amounts import Amounts, Asked, reread
from kdray.cost.cards import Card
from kdray.cost.decoder import BFLOAT16, FLOAT32, Decoder
from kdray.cost.given import WIDTH, Given
from kdray.cost.memory import Memory, Training
from kdray.cost.room import disk, labels, memories, points_per_gpu
from kdray.cost.share import PROCESS
from kdray.plan.inputs import AnswerInputs, AnswersInputs, LikelihoodInputs, RateInputs, SoftenInputs
from kdray.plan.steps import Plan, PointPlan, ScoreStep, Step, reading
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.points import Point
from kdray.spec.sections.training import Optimiser
from kdray.store import Store

LONGEST = 2 / 3  # of the longest allowed answer, which a batch's longest takes
SCORES = ("generate", "measure")  # kinds of steps
PASSES = 2  # a decoding may hold side by side
PARTS = 64  # about so many files of its own has what a step makes of rows that are read, at the least


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


def estimate(
    plan: Plan, store: Store, decoders: Mapping[str, Decoder], amounts: Amounts, card: Card, cluster: int = 1
) -> Estimate:
    """The price of all steps of `plan` that are not done, on so many GPUs in all.

    `decoders` are the models by role: `student`, and teachers by name.
    """
    return _Pricing(plan, store, decoders, amounts, card, cluster).estimate()


class _Pricing(Given):
    def estimate(self) -> Estimate:
        steps = [
            *self._teachers(),
            *(self._point(each) for each in self.plan.points if not each.point.aligned and self.left(each.train)),
            *self._scores(),
        ]
        sizes, sharers = dict(memories(self)), self.sharers
        return Estimate(self.card, steps, sizes, disk(self), labels(self), self._left_out(), sharers)

    @cached_property
    def sharers(self) -> int:
        """Points that share a GPU."""
        return points_per_gpu(self)

    # training

    def _training(
        self,
        step: Step,
        model: Decoder,
        section: Optimiser,
        batch: int,
        kept: float,
        exports: int,
        teacher: Decoder | None,
        sharers: int = 1,
        on_policy: float = 0.0,
        rows: int | None = None,
    ) -> StepCost:
        """`kept`: bytes of each of the `exports`; `on_policy`: the share of steps on what the student samples; `rows`
        are learned, if not all are.
        """
        how, rows = self.how(section), rows or self.amounts.train
        steps = section.steps if section.steps is not None else rows * section.total / batch
        operations = batch * self._row(model, how, teacher)
        busy = min(how.workers, batch)  # the others idle, and wait
        seconds = time.of_training_step(model, how, self.card, operations * how.workers / busy, sharers)
        if on_policy:
            sampling, work = self._sampling(model, how, batch, busy)
            seconds, operations = seconds + on_policy * sampling, operations + on_policy * work
        state = (FLOAT32 + memory.ADAM) * (memory.adapters(model, how.rank) if how.rank else model.weights)
        runtime = self.plan.grid.runtime
        saved = min(60 * runtime.checkpoint_minutes, (runtime.checkpoint_every or math.inf) * seconds)
        beside = declared(declare.Engine, how.engine).beside and self.card.unit == "GPU"

        def waited(size: float, until: float) -> float:
            """Written while steps go on, it is waited for where the next is due before it is there."""
            return max(0.0, size / time.DISK - (until if beside else 0.0))

        written = steps * seconds // saved * waited(state, saved)
        between = min(saved, steps * seconds / exports)
        written += (exports - 1) * waited(kept, between) + kept / time.DISK  # the last one's is the point's end
        return StepCost(
            step.kind,
            how.workers,
            steps * seconds + written,
            steps * operations,
            step.mark,
            saved=saved,
            busy=busy / how.workers,
            sharers=sharers,
        )

    def _sampling(self, model: Decoder, how: Training, batch: int, busy: int) -> tuple[float, float]:
        """Seconds and operations of the responses to a batch, a part of which each of the `busy` workers samples."""
        prompt, longest = self.amounts.prompt, LONGEST * self.plan.grid.max_sampled
        width = BFLOAT16 if how.bfloat16 else FLOAT32
        seconds = time.of_answers(model, self.card, busy, width, batch, batch, prompt, longest, vllm=False)
        return seconds, model.forward(batch * (prompt + longest), (prompt + longest) / 2, batch * longest)

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
            if teacher.tune and self.left(self.plan.models[name]):
                model, whole = self.decoders[name], FLOAT32 * self.decoders[name].weights
                yield self._training(self.plan.models[name], model, teacher.tune, teacher.tune.batch, whole, 1, None)
        for step in reading(self.waiting, AnswerInputs):
            model, width, vllm = (
                self.decoders[self.plan.role(step.inputs.teacher)],
                WIDTH[grid.augment.compute],
                grid.augment.engine == "vllm",
            )
            asked = Asked(amounts.train, 1, amounts.prompt, grid.augment.max_new_tokens)
            yield self._answers(step, model, width, grid.augment.batch, asked, vllm, grid.augment.quantise)
        for step in reading(self.waiting, SoftenInputs):
            model, width = self.decoders[self.plan.role(step.inputs.teacher)], WIDTH[grid.soft_labels.compute]
            rows = amounts.train + amounts.heldout
            read, labels = Asked(rows, 1, amounts.tokens, 0), grid.soft_labels
            yield self._reads(step, model, width, labels.batch, read, 0, labels.quantise)

    def _point(self, point: PointPlan) -> StepCost:
        teacher = point.point.teacher or next(iter(self.plan.grid.all_teachers), "")
        member = next(iter(self.plan.grid.ensembles.get(teacher, {teacher: 1})))
        taught = self.decoders.get(member) if point.point.alpha else None
        kept, exports, student = self.exported(), len(point.exports), self.decoders["student"]
        section, batch = self.plan.grid.train, point.point.batch
        share, rows = point.point.on_policy, self._chosen(point)
        return self._training(point.train, student, section, batch, kept, exports, taught, self.sharers, share, rows)

    def _chosen(self, point: PointPlan) -> int | None:
        """How many rows a point has of a choice of them, once it is made."""
        among = point.train.inputs.among
        made = among and among.id and self.store.get(among.key)
        return made.facts["kept"] if made else None

    # answers and scores

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
        gpus, longest = self.gpus(model, width, quantise), LONGEST * asked.answer
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
        gpus, sequences = self.gpus(model, width, quantise), asked.rows * asked.sequences
        seconds = time.of_reading(model, self.card, gpus, width, batch, sequences, asked.tokens, predicted)
        work = model.forward(sequences * asked.tokens, asked.tokens / 2, sequences * predicted)
        loading = width * model.weights / time.DISK
        return StepCost(
            step.kind, gpus, seconds + loading, work, step.mark, loading, min(PARTS, -(-sequences // batch))
        )

    def _model_of(self, score: ScoreStep) -> Decoder:
        return self.decoders["student" if isinstance(score.subject, Point) else score.subject]

    def _scores(self) -> Iterator[StepCost]:
        scoring, seen = self.plan.grid.score, set[object]()
        for score in self.plan.scores:
            if (asked := self.asked[score.task.name]) is None:
                continue
            model, width = self._model_of(score), WIDTH[scoring.dtype]
            if score.generate and score.generate.mark not in seen and self.left(score.generate):
                seen.add(score.generate.mark)
                yield self._answers(score.generate, model, width, scoring.batch, asked, scoring.engine == "vllm")
            if score.measure.mark in seen or not self.left(score.measure):
                continue
            seen.add(score.measure.mark)
            if isinstance(score.measure.inputs, LikelihoodInputs):
                predicted = self.amounts.response if score.measure.inputs.data else asked.tokens
                yield self._reads(score.measure, model, width, scoring.batch, asked, predicted)
            elif isinstance(score.measure.inputs, RateInputs):
                read = replace(asked, tokens=asked.tokens + LONGEST * asked.answer)
                yield self._reads(score.measure, model, width, scoring.batch, read, 0)
            elif score.measure.inputs.model:  # `selfcite` is the one metric that asks the model
                [use] = (use for use in scoring.metrics if declared(declare.Metric, use.name).answerer)
                answer = LONGEST * asked.answer
                read = reread(asked, answer, use.params["considered"])
                yield self._reads(score.measure, model, width, scoring.batch, read, answer)

    def _left_out(self) -> list[str]:
        unknown = [name for name, asked in self.asked.items() if asked is None]
        judged = {
            inputs.models.metric
            for inputs in (score.measure.inputs for score in self.plan.scores)
            if isinstance(inputs, AnswersInputs) and inputs.models and not inputs.model
        }
        waiting = [point for point in self.plan.points if point.train.inputs.among and self.left(point.train)]
        counted = self.plan.grid.train.steps is not None or all(map(self._chosen, waiting))
        ways = [use.name for use in self.plan.grid.score.decoding]
        cited = {name for name in ways if declared(declare.Decoding, name).cites}
        return [
            *(f"task {name}" for name in sorted(unknown)),
            *(f"the models of {name}" for name in sorted(judged)),
            *(f"the citations of {name}" for name in sorted(cited)),
            *([] if counted else ["that balanced rows are fewer, before data.curate is done"]),
            *(["points that are aligned"] if self.plan.grid.align else []),
        ]
