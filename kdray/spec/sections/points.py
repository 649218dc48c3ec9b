"""Which points there are: the axes of the grid, and points by hand."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from kdray.spec.sections.base import SELECTS, Labels, NonNegative, Section, Seed, Share, Slug, all_different


class Axes(Section):
    """The grid: every combination is a point."""

    lr: Annotated[list[PositiveFloat], Field(min_length=1, description="largest learning rates"), SELECTS]
    batch: Annotated[
        list[PositiveInt],
        Field(min_length=1, description="sequences per optimiser step, whatever the number of workers"),
        SELECTS,
    ]
    alpha: Annotated[
        list[NonNegative],
        Field(min_length=1, description="weights of the soft labels; 0 is plain fine-tuning (SFT)"),
        SELECTS,
    ]
    seed: Annotated[list[Seed], SELECTS] = Field(
        default=[0], min_length=1, description="of the order of examples, of dropout and of adapters"
    )
    labels: Annotated[list[Labels], SELECTS] = Field(
        default=["gold"],
        min_length=1,
        description="the responses to train on: `gold`, `teacher` or `both` (see docs/grid.md#labels)",
    )
    teacher: Annotated[list[Slug], AfterValidator(all_different), SELECTS] = Field(
        default=[], description="of `teachers` and `ensembles`, those that points learn from; by default all"
    )
    smoothing: Annotated[list[Share], Field(min_length=1), AfterValidator(all_different), SELECTS] = Field(
        default=[0],
        description="shares of uniform labels among the hard ones: label smoothing, the control that needs no teacher",
    )
    temperature: Annotated[list[PositiveFloat], AfterValidator(all_different), SELECTS] = Field(
        default=[], description="of the soft term, by default `objective.temperature` alone"
    )


class PointSpec(Section):
    """One point by hand, for `include` and `exclude`."""

    lr: Annotated[PositiveFloat, SELECTS] = Field(description="the largest learning rate")
    batch: Annotated[PositiveInt, SELECTS] = Field(description="sequences per optimiser step")
    alpha: Annotated[NonNegative, SELECTS] = Field(
        description="weight of the soft labels; 0 is plain fine-tuning (SFT)"
    )
    seed: Annotated[Seed, SELECTS] = Field(0, description="of the order of examples, of dropout and of adapters")
    labels: Annotated[Labels, SELECTS] = Field("gold", description="the responses to train on")
    teacher: Annotated[Slug | None, SELECTS] = Field(
        default=None, description="needed where the grid has several `teachers` and the point uses one"
    )
    smoothing: Annotated[Share, SELECTS] = Field(default=0, description="share of uniform labels among the hard ones")
    temperature: Annotated[PositiveFloat | None, SELECTS] = Field(
        default=None, description="of the soft term, by default `objective.temperature`"
    )
