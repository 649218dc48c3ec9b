"""What a grid's lens is made of, and which tasks it can rate."""

from __future__ import annotations

from collections.abc import Sequence

from kdray.spec.components import bind_use, component, components
from kdray.spec.errors import InputError
from kdray.spec.grid import PUBLISHED_LENS, Lens, Use
from kdray.spec.refs import parse_reference

FIT_VERSION = 2  # of what trains a lens
RATE_VERSION = 3  # of what measures a factual rate, and the lens by it
PICKLED = ".pkl"  # how the name of a published classifier ends
PUBLISHED_FAMILY, PUBLISHED_SHAPE = "llama2", (32, 32)  # layers, heads: Llama-2-7B's


def bind_lens(lens: Lens, tasks: Sequence[Use], family: str) -> Lens:
    """The section of a grid of this family, with its components checked and their defaults filled in.

    Raises:
        InputError: it says too little or too much of where the lens is from; a component that does not exist or does not
            fit; or none of `tasks` has answers that a lens can rate.
    """
    if not any(map(rated_by_lens, tasks)):
        able = ", ".join(name for name, task in components("task").items() if task.constants.get("FACTUAL_RATE"))
        raise InputError("lens", "none of the grid's tasks has answers that it can rate", f"add one of {able} to score.tasks")
    given = [name for name in ("annotations", "source", "own", "trained") if getattr(lens, name) is not None]
    if not given and family == PUBLISHED_FAMILY:
        given, lens = ["trained"], lens.model_copy(update={"trained": PUBLISHED_LENS})
    if given not in (["annotations", "source"], ["own"], ["trained"], ["annotations", "source", "trained"], ["own", "trained"]):
        raise InputError("lens", f"has {', '.join(given) or 'nothing to learn from'}", "give annotations and source, own, or trained")
    if lens.trained is not None:
        ref = parse_reference(lens.trained, "lens.trained")
        if ref.scheme != "file" and not (ref.scheme == "https" and ref.name.endswith(PICKLED)):
            allowed = f"file: and a folder that `kdray lens train` wrote or a published classifier_*{PICKLED}, or `published`"
            raise InputError("lens.trained", f"'{lens.trained}'", allowed)
        if "window" in lens.model_fields_set:
            raise InputError("lens.window", "beside a lens that is trained", "leave it out: the lens brings its own")
    if lens.source and parse_reference(lens.source, "lens.source").scheme == "hf":
        raise InputError("lens.source", f"'{lens.source}' is a repository", "annotations must be one file: file:, wheel: or https:")
    if lens.annotations and (beside := component("annotations", lens.annotations, "lens.annotations").constants.get("BESIDE")):
        allowed = "in a grid a format must be one file: write these annotations as jsonl"
        raise InputError("lens.annotations", f"'{lens.annotations}' needs {beside} beside its file", allowed)
    if lens.own is None:
        return lens
    task, metric = bind_use(lens.own.task, "task", "lens.own.task"), bind_use(lens.own.metric, "metric", "lens.own.metric")
    answered = component("task", task.name, "lens.own.task").constants
    if answered["KIND"] != "generate" or "source" not in answered.get("GIVES", ()):
        able = [name for name, other in components("task").items() if "source" in other.constants.get("GIVES", ())]
        raise InputError("lens.own.task", f"'{task.name}' gives no text to be true to", f"one of {', '.join(able)}")
    if not finds_hallucinations(metric.name):
        able = ", ".join(filter(finds_hallucinations, components("metric")))
        raise InputError("lens.own.metric", f"'{metric.name}' is not about an answer's source", f"one of {able}")
    for name in component("metric", metric.name, "lens.own.metric").constants.get("MODELS", {}):
        parse_reference(metric.params[name], f"lens.own.metric.{name}")
    return lens.model_copy(update={"own": lens.own.model_copy(update={"task": task, "metric": metric})})


def rated_by_lens(task: Use) -> bool:
    """Whether a task's answers are held against a text, so that a lens can say how factual they are."""
    return bool(component("task", task.name, "score.tasks").constants.get("FACTUAL_RATE"))


def finds_hallucinations(metric: str) -> bool:
    """Whether a metric holds an answer against its source alone."""
    return component("metric", metric, "score.metrics").constants["NEEDS"] == ("source",)
