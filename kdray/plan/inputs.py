"""What each kind of step reads: other steps, by typed fields. How these are called in ids and records is said here
alone.

A field's step is called by the field; of several, such as the members of an ensemble, each has a number,
`soft_labels.0`; a metric's model is called by both, `hhem.model`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from kdray.plan.steps import Step

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Of a step that reads no other, such as a model that is fetched."""

    @cached_property
    def named(self) -> Mapping[str, Step]:
        """The steps, by their names in ids and records."""
        found: dict[str, Step] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                found |= {f"{field.name}.{i}": step for i, step in enumerate(value)}
            elif isinstance(value, MetricModels):
                found |= {f"{value.metric}.{parameter}": step for parameter, step in value.by_parameter.items()}
            elif value is not None:
                found[field.name] = value
        return found

    @property
    def steps(self) -> Collection[Step]:
        return self.named.values()


def recorded(inputs: Mapping[str, T], field: str) -> list[T]:
    """What a record has of a field that may hold several."""
    return [value for name, value in inputs.items() if name.partition(".")[0] == field]


@dataclass(frozen=True)
class MetricModels:
    """The models of a metric, by the parameters that name them."""

    metric: str
    by_parameter: Mapping[str, Step]


@dataclass(frozen=True, kw_only=True)
class CutInputs(Inputs):
    """Of a model without some of its layers."""

    model: Step


@dataclass(frozen=True, kw_only=True)
class PrepareInputs(Inputs):
    tokenizer: Step


@dataclass(frozen=True, kw_only=True)
class RetokeniseInputs(Inputs):
    """Of rows in the student's tokens, which are to be in those of a teacher, whose tokenizer it is."""

    tokenizer: Step
    student: Step
    data: Step


@dataclass(frozen=True, kw_only=True)
class CurateInputs(Inputs):
    """Of the choice of rows to train on."""

    data: Step[PrepareInputs]


@dataclass(frozen=True, kw_only=True)
class AnswerInputs(Inputs):
    """Of the data with the teacher's answers; `across`: the data in its tokens, if they are not the student's."""

    teacher: Step
    data: Step[PrepareInputs]
    across: Step[RetokeniseInputs] | None = None


@dataclass(frozen=True, kw_only=True)
class JoinInputs(Inputs):
    """Of the original responses and the teacher's answers together."""

    data: Step[PrepareInputs]
    answers: Step[AnswerInputs]


@dataclass(frozen=True, kw_only=True)
class SoftenInputs(Inputs):
    teacher: Step
    data: Step


@dataclass(frozen=True, kw_only=True)
class Softened(Inputs):
    """Soft labels: kept ones or, where none are kept, the teacher itself; of an ensemble those of each member.

    `across`: the rows in the tokens of a teacher that has others than the student.
    """

    soft_labels: Step[SoftenInputs] | tuple[Step[SoftenInputs], ...] | None = None
    teacher: Step | tuple[Step, ...] | None = None
    across: Step[RetokeniseInputs] | None = None

    @property
    def sources(self) -> tuple[Step, ...]:
        """One teacher's, or a member's each; nothing where nobody teaches."""
        given = self.soft_labels or self.teacher or ()
        return given if isinstance(given, tuple) else (given,)


@dataclass(frozen=True, kw_only=True)
class TrainInputs(Softened):
    """Of a point, and of a teacher that is fine-tuned. `among`: the choice of the rows to train on, if not all are;
    `pairs`: answers with citations, if it is these that are learned.
    """

    student: Step
    data: Step
    among: Step[CurateInputs] | None = None
    pairs: Step[GenerateInputs] | None = None


@dataclass(frozen=True, kw_only=True)
class ExportInputs(Inputs):
    point: Step[TrainInputs]


@dataclass(frozen=True, kw_only=True)
class GenerateInputs(Inputs):
    """`data`: the grid's own rows in the model's tokens, if the task is about them. `guide`: the grid's lens, if it
    guides the decoding.
    """

    model: Step
    data: Step[PrepareInputs | RetokeniseInputs] | None = None
    guide: Step[LensInputs] | None = None


@dataclass(frozen=True, kw_only=True)
class AnnotateInputs(Inputs):
    outputs: Step[GenerateInputs]
    models: MetricModels


@dataclass(frozen=True, kw_only=True)
class LensInputs(Inputs):
    """`annotated`: the model's own answers, if it is they that the lens is made of or tested on."""

    model: Step
    annotated: Step[AnnotateInputs] | None = None


@dataclass(frozen=True, kw_only=True)
class LikelihoodInputs(Softened):
    """Of a measurement by log-likelihoods; with soft labels where a divergence from the teacher is among them."""

    model: Step
    data: Step[PrepareInputs | RetokeniseInputs] | None = None


@dataclass(frozen=True, kw_only=True)
class AnswersInputs(Inputs):
    """Of metrics of answers; `samples`: the same prompts' answers drawn at random, for a metric that compares them;
    `model`: the one that answered, for a metric that asks it.
    """

    outputs: Step[GenerateInputs]
    model: Step | None = None
    models: MetricModels | None = None
    samples: tuple[Step[GenerateInputs], ...] = ()


@dataclass(frozen=True, kw_only=True)
class RateInputs(Inputs):
    """Of a factual rate: a lens looks at a model as it reads its answers once more."""

    outputs: Step[GenerateInputs]
    model: Step
    lens: Step[LensInputs]


MeasureInputs = LikelihoodInputs | AnswersInputs | RateInputs
