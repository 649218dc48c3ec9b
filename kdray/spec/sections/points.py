"""Which points there are: the axes of the grid, and points by hand. And some of them, by what they have in common."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from kdray.spec.errors import InputError
from kdray.spec.sections.base import (
    RUNS,
    SELECTS,
    Fraction,
    Labels,
    NonNegative,
    RowsOf,
    Section,
    Seed,
    Share,
    Slug,
    all_different,
)


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
        description=(
            "the responses to train on: `gold`, `teacher` or `both` (see docs/grid.md#labels), or `student`, those that"
            " it samples as it trains (see docs/grid.md#on-policy)"
        ),
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
    on_policy: Annotated[list[Fraction], AfterValidator(all_different), SELECTS] = Field(
        default=[],
        description="with labels `student`: shares of on-policy steps, by default `objective.on_policy` alone",
    )
    rows: Annotated[list[RowsOf], Field(min_length=1), AfterValidator(all_different), SELECTS] = Field(
        default=["all"],
        description=(
            "the training rows: `all`, those that `data.curate` has `balanced`, or as many at `random` (docs/curate.md)"
        ),
    )
    aligned: Annotated[list[bool], Field(min_length=1), AfterValidator(all_different), SELECTS] = Field(
        default=[False],
        description="true: points that train on from the ends of those with false, on their own citations, by `align`",
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
    on_policy: Annotated[Fraction | None, SELECTS] = Field(
        default=None, description="with labels `student`: share of on-policy steps, by default `objective.on_policy`"
    )
    rows: Annotated[RowsOf, SELECTS] = Field("all", description="the training rows: `all`, `balanced` or `random`")
    aligned: Annotated[bool, SELECTS] = Field(default=False, description="whether it is aligned, by `align`")


class SomePoints(Section):
    """Those points that have all of what is named, whatever else they have."""

    lr: Annotated[PositiveFloat | None, RUNS] = Field(None, description="the largest learning rate")
    batch: Annotated[PositiveInt | None, RUNS] = Field(None, description="sequences per optimiser step")
    alpha: Annotated[NonNegative | None, RUNS] = Field(
        None, description="weight of the soft labels; 0 is plain fine-tuning (SFT)"
    )
    seed: Annotated[Seed | None, RUNS] = Field(None, description="of the order of examples, of dropout and of adapters")
    labels: Annotated[Labels | None, RUNS] = Field(None, description="the responses to train on")
    teacher: Annotated[Slug | None, RUNS] = Field(None, description="of several `teachers`")
    smoothing: Annotated[Share | None, RUNS] = Field(None, description="share of uniform labels among the hard ones")
    temperature: Annotated[PositiveFloat | None, RUNS] = Field(
        None, description="of the soft term; points without one have 1"
    )
    on_policy: Annotated[Fraction | None, RUNS] = Field(
        None, description="share of on-policy steps; points whose labels are not `student` have 0"
    )
    rows: Annotated[RowsOf | None, RUNS] = Field(None, description="the training rows")
    aligned: Annotated[bool | None, RUNS] = Field(None, description="whether they are aligned")

    @model_validator(mode="after")
    def _not_all(self) -> Self:
        if not self.named:
            raise InputError("", "names nothing", f"name some of {', '.join(type(self).model_fields)}")
        return self

    @property
    def named(self) -> dict[str, float | str]:
        """What the points have in common, by the field."""
        return self.model_dump(exclude_none=True)
