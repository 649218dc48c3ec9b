"""Which components a grid uses, and where it says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kdray.spec import declare
from kdray.spec.components import Component, component
from kdray.spec.installed import Entry
from kdray.spec.marks import marks
from kdray.spec.sections.base import Section, Use


def uses(section: Section, where: str = "") -> Iterator[tuple[str, Component[Any]]]:
    """The components that a grid, or a section of one, names, each by its field; those of a task's own metrics by the
    task's.

    Raises:
        InputError: it names one that there is not.
    """
    kinds = {name: mark.component for name, mark in marks(type(section)).items() if mark.component}
    for name, value in section:
        for field, inner in _below(f"{where}{name}", value):
            kind = kinds.get(name)
            if isinstance(inner, Section) and not isinstance(inner, Use):
                yield from uses(inner, f"{field}.")
            elif kind and inner is not None:
                found = component(kind, inner.name if isinstance(inner, Use) else inner, field)
                yield field, found
                if isinstance(found.declared, declare.AnswerTask):
                    yield from ((field, component(declare.Metric, own, field)) for own in found.declared.metrics)


def _below(field: str, value: Any) -> list[tuple[str, Any]]:
    """What is in a list or a mapping, each by its field; anything else is one."""
    if isinstance(value, list):
        return [(f"{field}.{i}", each) for i, each in enumerate(value)]
    if isinstance(value, dict):
        return [(f"{field}.{key}", each) for key, each in value.items()]
    return [(field, value)]


def entries_by_field(section: Section) -> dict[str, Entry]:
    """The entry points behind those components of a grid that are not kdray's own, by field."""
    return {field: found.entry for field, found in uses(section) if found.entry}
