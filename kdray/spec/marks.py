"""What of a grid file enters ids: every field of the schema that is not a section itself carries one of these marks.

An id is the fingerprint of what a step's artifact depends on. `kdray.plan.identity` reads the marks, so that the line
that declares a field also says whether ids know it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from kdray.spec.declare import Declared


@dataclass(frozen=True)
class Mark:
    """`component`: the field names a component of this kind, or several."""

    component: type[Declared] | None = None


@dataclass(frozen=True)
class Enters(Mark):
    """The field changes what is made of its section, and enters its id.

    `instead`: what enters in its place, properties of the section by name. `where`: it enters only where other fields
    have one of these values. `unless_default`: not while it has its default, as for a field that older grids lack.
    `by_content`: it refers to something whose identity enters instead.
    """

    instead: Mapping[str, str] = field(default_factory=dict)
    where: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    unless_default: bool = False
    by_content: bool = False


class Selects(Mark):
    """The field decides which steps there are, or what they are made from: those have ids of their own."""


class Shown(Mark):
    """The field is about how results are told."""


class Runs(Mark):
    """The field is about where and how it runs, and changes no number but for rounding."""


def marks(section: type[BaseModel]) -> dict[str, Mark]:
    """The marks of a section's fields, in their order; fields that are sections have none."""
    found = {
        name: [mark for mark in field.metadata if isinstance(mark, Mark)]
        for name, field in section.model_fields.items()
    }
    return {name: mark[0] for name, mark in found.items() if mark}
