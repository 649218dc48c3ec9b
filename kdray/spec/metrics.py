"""Which metrics are taken of a generation task's answers.

A metric declares what it `needs` of a task, a task what it `gives`: reference answers, the source text that an
answer must be true to, wrong answers, and whether a right answer is short. `scores` names a metric's numbers,
the one that tables show first.
"""

from __future__ import annotations

from collections.abc import Sequence

from kdray.spec import declare
from kdray.spec.components import bind, component, components, declared
from kdray.spec.errors import InputError
from kdray.spec.refs import parse_reference
from kdray.spec.sections.base import Use

ANSWERS_VERSION = 2  # of what metrics take for the answer; since 2 without the thought before it


def bind_metrics(chosen: Sequence[Use], tasks: Sequence[Use]) -> list[Use]:
    """`score.metrics` with every parameter checked and defaults filled in.

    Raises:
        InputError: an unknown metric or parameter, one named twice, one that fits none of `tasks`, or a malformed
            reference to its model.
    """
    bound: list[Use] = []
    for i, use in enumerate(chosen):
        where = f"score.metrics.{i}"
        weights = component(declare.Metric, use.name, where).declared.models
        params = bind(declare.Metric, use.name, use.params, where)
        for name in weights:
            parse_reference(params[name], f"{where}.{name}")
        if use.name in [other.name for other in bound]:
            raise InputError(where, f"'{use.name}' a second time", "name every metric once")
        if not any(_fits(use.name, task.name) for task in tasks):
            able = [name for name in components(declare.Task) if _fits(use.name, name)]
            raise InputError(
                where, f"none of the grid's tasks gives what '{use.name}' needs", f"it fits {', '.join(able)}"
            )
        bound.append(Use.model_construct(name=use.name, params=params))
    return bound


def metrics_of(task: Use, chosen: Sequence[Use]) -> list[Use]:
    """The metrics of a generation task: its own, with the grid's parameters where it has some, then those that fit
    it.
    """
    asked = declared(declare.Task, task.name)
    own = asked.metrics if isinstance(asked, declare.AnswerTask) else ()
    uses = {
        name: Use.model_construct(name=name, params=bind(declare.Metric, name, {}, "score.metrics")) for name in own
    }
    uses |= {use.name: use for use in chosen if _fits(use.name, task.name)}
    return list(uses.values())


def scores_of(metric: Use) -> tuple[str, ...]:
    """The names of a metric's numbers."""
    return declared(declare.Metric, metric.name).scores


def _fits(metric: str, task: str) -> bool:
    asked = components(declare.Task)[task.partition(":")[0]].declared
    return isinstance(asked, declare.AnswerTask) and set(declared(declare.Metric, metric).needs) <= set(asked.gives)
