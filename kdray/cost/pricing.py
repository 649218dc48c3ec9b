"""The price of every step that is left of a grid: operations, and time on a card."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from kdray.cost import citing, memory, time
from kdray.cost.amounts import HELDOUT_BATCH, Amounts, Asked, reread
from kdray.cost.cards import Card
from kdray.cost.decoder import BFLOAT16, FLOAT32, Decoder
from kdray.cost.estimate import Estimate, StepCost
from kdray.cost.given import WIDTH, Given
from kdray.cost.memory import Training
from kdray.cost.room import disk, labels, memories, points_per_gpu
from kdray.plan.inputs import AnswerInputs, AnswersInputs, LensInputs, LikelihoodInputs, RateInputs, SoftenInputs
from kdray.plan.steps import Plan, PointPlan, ScoreStep, Step, reading
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.decodings import aligned_by, decoding_label
from kdray.spec.points import Point
from kdray.spec.sections.base import Use
from kdray.spec.sections.training import Optimiser
from kdray.store import Store

PARTS = 64  # about so many files of its own has what a step makes of rows that are read, at the least
HELDOUT = 10  # one pair in so many is not learned
TESTED = 5  # one document in so many is not what a lens is made of
TRAINED = ("teach", "train")  # kinds of steps
BESIDE_TRAINING, SERVING = 1.8, 16  # in starts: Ray's own processes of a training, and the driver and all services


@dataclass(frozen=True)
class _Learned:
    """What a training learns: `steps` of `batch` examples, and so often (`looks`) how it does on `heldout` of them.

    An example is `sequences` of so many tokens of prompt and of response; `teacher` has a part in it.
    """

    steps: float
    batch: int
    prompt: float
    response: float
    heldout: float
    looks: int
    sequences: int = 1
    teacher: Decoder | None = None


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
            *self._lens(),
            *self._teachers(),
            *(self._point(each) for each in self.plan.points if self.left(each.train)),
            *self._cited(),
            *self._scores(),
        ]
        steps, sizes, sharers = [*self._starts(steps), *steps], dict(memories(self)), self.sharers
        return Estimate(self.card, steps, sizes, disk(self), labels(self), self._left_out(), sharers)

    def _starts(self, steps: Sequence[StepCost]) -> Iterator[StepCost]:
        """Of processes, where a card says what one takes: of each training its workers, the one that controls them and
        Ray's own, for all else an actor a core, which stay, and once what serves the whole run.
        """
        trained = [step for step in steps if step.kind in TRAINED]
        processes = sum(step.gpus + 1 + BESIDE_TRAINING for step in trained)
        processes += self.cluster * (len(trained) < len(steps)) + SERVING
        if steps and self.card.start:
            yield StepCost("start", 1, processes * self.card.start, 0.0, items=round(processes))

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
        learned: _Learned,
        kept: float,
        exports: int,
        sharers: int = 1,
        on_policy: float = 0.0,
    ) -> StepCost:
        """`kept`: bytes of each of the `exports`; `on_policy`: the share of steps on what the student samples."""
        how, batch, steps = self.how(section), learned.batch, learned.steps
        operations = batch * self._example(model, how, learned)
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
        looked = learned.looks * learned.heldout * self._forward(model, learned)
        sequences = learned.looks * learned.heldout * learned.sequences
        looking = time.of_looking(model, how, self.card, looked, sequences / HELDOUT_BATCH, sharers)
        return StepCost(
            step.kind,
            how.workers,
            steps * seconds + looking + written,
            steps * operations + looked,
            step.mark,
            saved=saved,
            busy=busy / how.workers,
            sharers=sharers,
        )

    def _sampling(self, model: Decoder, how: Training, batch: int, busy: int) -> tuple[float, float]:
        """Seconds and operations of the responses to a batch, a part of which each of the `busy` workers samples."""
        prompt, longest = self.amounts.prompt, self.plan.grid.max_sampled
        width = BFLOAT16 if how.bfloat16 else FLOAT32
        seconds = time.of_answers(model, self.card, busy, width, batch, batch, prompt, longest, vllm=False)
        return seconds, model.forward(batch * (prompt + longest), (prompt + longest) / 2, batch * longest)

    def _example(self, model: Decoder, how: Training, learned: _Learned) -> float:
        """Operations of learning an example: forward and twice as much backward, of frozen weights once."""
        tokens, passes = learned.prompt + learned.response, 2 if how.rank else 3
        more = (passes + how.checkpointing - 1) * model.forward(tokens, tokens / 2, 0)
        more += (passes - 1) * model.forward(0, 0, learned.response)
        return self._forward(model, learned) + learned.sequences * more

    def _forward(self, model: Decoder, learned: _Learned) -> float:
        """Operations of a look at an example, the teacher's part of its soft labels among them."""
        tokens, form = learned.prompt + learned.response, declared(declare.Form, self.plan.grid.soft_labels.form.name)
        own, teacher, asked = (
            learned.sequences * model.forward(tokens, tokens / 2, learned.response),
            learned.teacher,
            0.0,
        )
        if teacher and form.head:
            asked = teacher.forward(0, 0, learned.response)
        elif teacher and not form.kept:
            asked = teacher.forward(tokens, tokens / 2, learned.response)
        return own + asked

    def _teachers(self) -> Iterator[StepCost]:
        grid, amounts = self.plan.grid, self.amounts
        for name, teacher in grid.all_teachers.items():
            if teacher.tune and self.left(self.plan.models[name]):
                model, whole = self.decoders[name], FLOAT32 * self.decoders[name].weights
                learned = self._rows(teacher.tune, teacher.tune.batch, amounts.train, looks=1)
                yield self._training(self.plan.models[name], model, teacher.tune, learned, whole, 1)
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

    def _rows(self, section: Optimiser, batch: int, rows: int, looks: int, teacher: Decoder | None = None) -> _Learned:
        """So many of the grid's rows, as often as a section says."""
        steps = section.steps if section.steps is not None else rows * section.total / batch
        amounts = self.amounts
        return _Learned(steps, batch, amounts.prompt, amounts.response, amounts.heldout, looks, teacher=teacher)

    def _point(self, point: PointPlan) -> StepCost:
        kept, exports = self.exported(), len(point.exports)
        student, section = self.decoders["student"], self.plan.grid.train
        if point.point.aligned:
            return self._training(point.train, student, section, self._pairs(), kept, exports, self.sharers)
        teacher = point.point.teacher or next(iter(self.plan.grid.all_teachers), "")
        member = next(iter(self.plan.grid.ensembles.get(teacher, {teacher: 1})))
        taught = self.decoders.get(member) if point.point.alpha else None
        rows = self._chosen(point) or self.amounts.train
        learned = self._rows(section, point.point.batch, rows, exports, taught)
        share = point.point.on_policy
        return self._training(point.train, student, section, learned, kept, exports, self.sharers, share)

    def _pairs(self) -> _Learned:
        """What an aligned point learns: two responses to a prompt with marks, each an answer with citations.

        There is at most a pair an answer.
        """
        align, asked = self.plan.grid.align, self._answered
        assert align
        prompt, response = citing.marked(asked.tokens), citing.cited(asked.answer)
        return _Learned(align.steps, align.batch, prompt, response, asked.rows // HELDOUT, looks=1, sequences=2)

    @property
    def _answered(self) -> Asked:
        """The training rows whose answers an aligned point learns from."""
        align, rows = self.plan.grid.align, self.amounts.train
        assert align
        return Asked(min(align.answers or rows, rows), 1, self.amounts.prompt, align.max_new_tokens)

    def _chosen(self, point: PointPlan) -> int | None:
        """How many rows a point has of a choice of them, once it is made."""
        among = point.train.inputs.among
        made = among and among.id and self.store.get(among.key)
        return made.facts["kept"] if made else None

    # answers and scores

    def _lens(self) -> Iterator[StepCost]:
        """The untrained student's own answers, of which a lens is made or by which it is tested, and their reading."""
        if (asked := self.examined) is None:
            return
        scoring, student = self.plan.grid.score, self.decoders["student"]
        width, read = WIDTH[scoring.dtype], replace(asked, tokens=asked.tokens + asked.answer)
        for step in reading(self.waiting, LensInputs):
            if annotated := step.inputs.annotated:
                if self.left(outputs := annotated.inputs.outputs):
                    answers = self._answers(outputs, student, width, scoring.batch, asked, vllm=False)
                    yield replace(answers, kind=step.kind)
                yield self._reads(step, student, width, scoring.batch, read, 0)

    def _answers(
        self,
        step: Step,
        model: Decoder,
        width: int,
        batch: int,
        asked: Asked,
        vllm: bool,
        quantise: str | None = None,
        cites: Use | None = None,
    ) -> StepCost:
        """`cites`: a decoding that cites."""
        gpus, longest = self.gpus(model, width, quantise), asked.answer
        seconds = time.of_answers(model, self.card, gpus, width, batch, asked.rows, asked.tokens, longest, vllm)
        work = model.forward(asked.rows * (asked.tokens + longest), asked.tokens / 2, asked.rows * longest)
        if cites:
            more, operations = citing.of_citing(model, self.card, gpus, width, asked, cites.params)
            seconds, work = seconds + more, work + operations
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
        seconds = time.of_reading(model, self.card, gpus, width, batch, sequences, asked.read, predicted)
        work = model.forward(sequences * asked.read, asked.read / 2, sequences * predicted)
        loading = width * model.weights / time.DISK
        return StepCost(
            step.kind, gpus, seconds + loading, work, step.mark, loading, min(PARTS, -(-sequences // batch))
        )

    def _model_of(self, score: ScoreStep) -> Decoder:
        return self.decoders["student" if isinstance(score.subject, Point) else score.subject]

    def _cited(self) -> Iterator[StepCost]:
        """The answers with citations that aligned points learn from."""
        scoring, student = self.plan.grid.score, self.decoders["student"]
        for step in [point.train.inputs.pairs for point in self.plan.points]:
            if step and self.plan.grid.align and self.left(step):
                cites, width = aligned_by(self.plan.grid.align), WIDTH[scoring.dtype]
                yield self._answers(step, student, width, scoring.batch, self._answered, vllm=False, cites=cites)

    def _scores(self) -> Iterator[StepCost]:
        scoring, seen = self.plan.grid.score, set[object]()
        for score in self.plan.scores:
            if (asked := self.asked[score.task.name]) is None:
                continue
            model, width = self._model_of(score), WIDTH[scoring.dtype]
            if score.generate and score.generate.mark not in seen and self.left(score.generate):
                seen.add(score.generate.mark)
                cites = next(
                    (use for use in scoring.decoding if decoding_label(use) == score.decoding and _cites(use)), None
                )
                vllm = scoring.engine == "vllm"
                yield self._answers(score.generate, model, width, scoring.batch, asked, vllm, cites=cites)
            if score.measure.mark in seen or not self.left(score.measure):
                continue
            seen.add(score.measure.mark)
            if isinstance(score.measure.inputs, LikelihoodInputs):
                if score.measure.inputs.data:  # of held-out rows, which are read one by one
                    yield self._reads(score.measure, model, width, 1, asked, self.amounts.response)
                else:
                    yield self._reads(score.measure, model, width, scoring.batch, asked, asked.tokens - asked.shared)
            elif isinstance(score.measure.inputs, RateInputs):
                read = replace(asked, rows=asked.rows + self._kept_out, tokens=asked.tokens + asked.answer)
                yield self._reads(score.measure, model, width, scoring.batch, read, 0)
            elif score.measure.inputs.model:  # `selfcite` is the one metric that asks the model
                [use] = (use for use in scoring.metrics if declared(declare.Metric, use.name).answerer)
                read = reread(asked, asked.answer, use.params["considered"])
                yield self._reads(score.measure, model, width, scoring.batch, read, asked.answer)

    @property
    def _kept_out(self) -> int:
        """Responses that the grid's lens is tested on with every rate: a fifth of those that it is made of or, where it
        was made elsewhere, all.

        None are counted where only a file tells how many there are.
        """
        if (lens := self.plan.grid.lens) is None:
            return 0
        rows = self.examined.rows if self.examined else lens.limit or 0
        return rows if lens.trained else rows // TESTED

    def _left_out(self) -> list[str]:
        unknown = [name for name, asked in self.asked.items() if asked is None]
        judged = {
            inputs.models.metric
            for inputs in (score.measure.inputs for score in self.plan.scores)
            if isinstance(inputs, AnswersInputs) and inputs.models and not inputs.model
        }
        waiting = [point for point in self.plan.points if point.train.inputs.among and self.left(point.train)]
        counted = self.plan.grid.train.steps is not None or all(map(self._chosen, waiting))
        return [
            *(f"task {name}" for name in sorted(unknown)),
            *(f"the models of {name}" for name in sorted(judged)),
            *([] if counted else ["that balanced rows are fewer, before data.curate is done"]),
        ]


def _cites(use: Use) -> bool:
    return declared(declare.Decoding, use.name).cites
