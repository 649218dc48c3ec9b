"""What a grid's lens is made of, and which tasks it can rate."""

from __future__ import annotations

from collections.abc import Sequence

from kdray.spec import declare
from kdray.spec.components import bind_use, component, components, declared
from kdray.spec.errors import InputError
from kdray.spec.refs import parse_reference
from kdray.spec.sections.base import Use
from kdray.spec.sections.scoring import PUBLISHED_LENS, LensSection

FIT_VERSION = 2  # of what trains a lens
RATE_VERSION = 3  # of what measures a factual rate, and the lens by it
PICKLED = ".pkl"  # how the name of a published classifier ends
PUBLISHED_FAMILY, PUBLISHED_SHAPE = "llama2", (32, 32)  # layers, heads: Llama-2-7B's


def bind_lens(lens: LensSection, tasks: Sequence[Use], family: str) -> LensSection:
    """The section of a grid of this family, with its components checked and their defaults filled in.

    Raises:
        InputError: it says too little or too much of where the lens is from; a component that does not exist or does
            not fit; or none of `tasks` has answers that a lens can rate.
    """
    if not any(map(rated_by_lens, tasks)):
        able = ", ".join(filter(_is_rated, components(declare.Task)))
        raise InputError(
            "lens", "none of the grid's tasks has answers that it can rate", f"add one of {able} to score.tasks"
        )
    given = [name for name in ("annotations", "source", "own", "trained") if getattr(lens, name) is not None]
    if not given and family == PUBLISHED_FAMILY:
        given, lens = ["trained"], lens.model_copy(update={"trained": PUBLISHED_LENS})
    if given not in (
        ["annotations", "source"],
        ["own"],
        ["trained"],
        ["annotations", "source", "trained"],
        ["own", "trained"],
    ):
        raise InputError(
            "lens", f"has {', '.join(given) or 'nothing to learn from'}", "give annotations and source, own, or trained"
        )
    if lens.trained is not None:
        ref = parse_reference(lens.trained, "lens.trained")
        if ref.scheme != "file" and not (ref.scheme == "https" and ref.name.endswith(PICKLED)):
            allowed = (
                f"file: and a folder that `kdray lens train` wrote or a published classifier_*{PICKLED}, or `published`"
            )
            raise InputError("lens.trained", f"'{lens.trained}'", allowed)
        if "window" in lens.model_fields_set:
            raise InputError("lens.window", "beside a lens that is trained", "leave it out: the lens brings its own")
    if lens.source and parse_reference(lens.source, "lens.source").scheme == "hf":
        raise InputError(
            "lens.source", f"'{lens.source}' is a repository", "annotations must be one file: file:, wheel: or https:"
        )
    if lens.annotations and (
        beside := component(declare.Annotations, lens.annotations, "lens.annotations").declared.beside
    ):
        allowed = "in a grid a format must be one file: write these annotations as jsonl"
        raise InputError("lens.annotations", f"'{lens.annotations}' needs {beside} beside its file", allowed)
    if lens.own is None:
        return lens
    task, metric = (
        bind_use(lens.own.task, declare.Task, "lens.own.task"),
        bind_use(lens.own.metric, declare.Metric, "lens.own.metric"),
    )
    if not _gives_source(task.name):
        able = filter(_gives_source, components(declare.Task))
        raise InputError("lens.own.task", f"'{task.name}' gives no text to be true to", f"one of {', '.join(able)}")
    if not finds_hallucinations(metric.name):
        able = ", ".join(filter(finds_hallucinations, components(declare.Metric)))
        raise InputError("lens.own.metric", f"'{metric.name}' is not about an answer's source", f"one of {able}")
    if lacking := set(declared(declare.Metric, metric.name).needs).difference(_gives(task.name)):
        found = f"'{metric.name}' of the task '{task.name}', which gives no {' and no '.join(sorted(lacking))}"
        raise InputError("lens.own.metric", found, "another metric, or a task of questions with right answers")
    for name in declared(declare.Metric, metric.name).models:
        parse_reference(metric.params[name], f"lens.own.metric.{name}")
    return lens.model_copy(update={"own": lens.own.model_copy(update={"task": task, "metric": metric})})


def rated_by_lens(task: Use) -> bool:
    """Whether a task's answers are held against a text, so that a lens can say how factual they are."""
    return _is_rated(task.name)


def finds_hallucinations(metric: str) -> bool:
    """Whether a metric can say what of an answer is hallucinated: against its source, or of the whole by right
    answers.
    """
    return judges_texts(metric) or declared(declare.Metric, metric).whole


def judges_texts(metric: str) -> bool:
    """Whether a metric holds any text against a source, and needs nothing more, such as the model that wrote it
    or what that has cited.
    """
    wants = declared(declare.Metric, metric)
    return wants.needs == ("source",) and not wants.answerer and not wants.cited


def _is_rated(task: str) -> bool:
    asked = components(declare.Task)[task.partition(":")[0]].declared
    return isinstance(asked, declare.AnswerTask) and asked.factual_rate


def _gives_source(task: str) -> bool:
    return "source" in _gives(task)


def _gives(task: str) -> tuple[str, ...]:
    asked = components(declare.Task)[task.partition(":")[0]].declared
    return asked.gives if isinstance(asked, declare.AnswerTask) else ()
