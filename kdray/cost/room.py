"""What a grid takes room for: memory of a GPU by kind of step and model, disk, and soft labels in every form."""

from __future__ import annotations

import math
from collections.abc import Iterator

from kdray.cost import memory, share
from kdray.cost.decoder import BFLOAT16, FLOAT32, Decoder
from kdray.cost.given import WIDTH, Given
from kdray.cost.memory import Memory
from kdray.plan.inputs import AnswerInputs, SoftenInputs
from kdray.plan.sizes import bytes_per_token
from kdray.plan.steps import reading
from kdray.spec import declare
from kdray.spec.components import bind, components, declared
from kdray.spec.points import Point
from kdray.spec.sections.training import Optimiser

RESUMED = 2  # checkpoints that a point at work keeps


def memories(given: Given) -> Iterator[tuple[str, Memory]]:
    """Of a GPU, by kind of step and model."""
    grid, longest = given.plan.grid, given.plan.grid.data.max_length
    for name, teacher in grid.all_teachers.items():
        if teacher.tune:
            yield f"teach {name}", _of_training(given, given.decoders[name], teacher.tune, teacher.tune.batch)
    if given.plan.points:
        batch = max(point.point.batch for point in given.plan.points)
        yield "train", _of_training(given, given.decoders["student"], grid.train, batch)
    width, batch = WIDTH[grid.score.dtype], grid.score.batch
    asked = [task for task in given.asked.values() if task]
    answers = [2 * task.tokens + task.answer for task in asked if task.answer]  # a long article is twice the mean
    read = [task.tokens * 2 for task in asked if not task.answer]
    for role in dict.fromkeys(
        "student" if isinstance(score.subject, Point) else score.subject for score in given.plan.scores
    ):
        model = given.decoders[role]
        gpus = given.gpus(model, width)
        if answers:
            yield f"generate {role}", memory.of_answers(model, gpus, width, batch, max(answers))
        if read:
            yield f"measure {role}", memory.of_likelihoods(model, gpus, width, batch, max(read))
    for step in reading(given.plan.steps(), SoftenInputs):
        role, width = given.plan.role(step.inputs.teacher), WIDTH[grid.soft_labels.compute]
        model = given.decoders[role]
        section, gpus = grid.soft_labels, given.gpus(model, width, grid.soft_labels.quantise)
        yield (
            f"soften {role}",
            memory.of_answers(model, gpus, width, section.batch, longest, section.quantise),
        )
    for step in reading(given.plan.steps(), AnswerInputs):
        role, augment = given.plan.role(step.inputs.teacher), grid.augment
        if augment.quantise:
            model, width = given.decoders[role], WIDTH[augment.compute]
            tokens = grid.data.max_prompt + augment.max_new_tokens
            gpus = given.gpus(model, width, augment.quantise)
            needed = memory.of_answers(model, gpus, width, augment.batch, tokens, augment.quantise)
            yield f"augment {role}", needed


def _of_training(given: Given, model: Decoder, section: Optimiser, batch: int) -> Memory:
    how, longest = given.how(section), given.plan.grid.data.max_length
    sequences = math.ceil(batch / how.workers)
    sequences = min(sequences, given.plan.grid.runtime.micro_batch or sequences)
    return memory.of_training(model, how, sequences * longest, sequences * longest)


def points_per_gpu(given: Given) -> int:
    """Points that share a GPU of the card; none share a core. What a point takes is not sure under an engine that moves
    weights about, or where the teacher is asked at every step, which is then loaded beside the student.
    """
    grid, left = given.plan.grid, [point for point in given.plan.points if given.left(point.train)]
    if not left or given.card.unit == "core":
        return 1
    how, batch = given.how(grid.train), max(point.point.batch for point in left)
    form = declared(declare.Form, grid.soft_labels.form.name)
    asks = any(point.point.alpha for point in left) and not (form.kept or form.head)
    sure = how.engine == "ddp" and not asks
    needed = _of_training(given, given.decoders["student"], grid.train, batch).total if sure else None
    wanted = grid.runtime.points_per_gpu
    return share.points_per_gpu(wanted, how.workers, needed, given.card.memory, len(left), given.cluster)


def disk(given: Given) -> dict[str, float]:
    """Bytes of all that is kept, by what it is."""
    grid, student = given.plan.grid, given.decoders["student"]
    left = [sum(map(given.left, point.exports.values())) for point in given.plan.points]
    dropped = grid.runtime.drop_exports is not None
    exports = sum(min(1, count) for count in left) if dropped else sum(left)
    tuned = [given.decoders[name] for name, teacher in grid.all_teachers.items() if teacher.tune]
    how = given.how(grid.train)
    state = (FLOAT32 + memory.ADAM) * (memory.adapters(student, how.rank) if how.rank else student.weights)
    form, sizes = grid.soft_labels.form.name, labels(given)
    return {
        "checkpoints that are scored": exports * given.exported(),
        "checkpoints of a point until they are scored": (max(left) - 1) * given.exported()
        if dropped and any(left)
        else 0,
        "tuned teachers": sum(FLOAT32 * model.weights for model in tuned),
        "soft labels": sizes.get(form, 0.0),
        "to resume a point from": RESUMED * state,
    }


def labels(given: Given) -> dict[str, float]:
    """By form, each with its default parameters but the grid's own; the heads that some need, once a teacher."""
    sizes: dict[str, float] = {}
    amounts, own = given.amounts, given.plan.grid.soft_labels.form
    teachers = dict.fromkeys(given.plan.role(step.inputs.teacher) for step in reading(given.plan.steps(), SoftenInputs))
    tokens = (amounts.train + amounts.heldout) * amounts.response
    for name, form in components(declare.Form).items():
        if form.declared.kept:
            params = own.params if name == own.name else bind(declare.Form, name, {}, "soft_labels.form")
            sizes[name] = sum(
                tokens
                * bytes_per_token(
                    {"name": name, "params": params}, given.decoders[role].hidden, given.decoders[role].vocabulary
                )
                + (BFLOAT16 * given.decoders[role].embedding if form.declared.head else 0)
                for role in teachers
            )
    return sizes
