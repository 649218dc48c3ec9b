"""What enters ids: of a section of the grid file what the marks of its fields say, of a component its name and
version.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from kdray.spec.components import component
from kdray.spec.declare import Declared
from kdray.spec.marks import Enters, marks
from kdray.spec.sections.base import Section, Use

ONLINE = (
    "form",
    "compute",
    "quantise",
)  # of the section `soft_labels`, what is left of it where the teacher is asked at every step


def payload(section: Section, *names: str, **identities: Any) -> dict[str, Any]:
    """What the fields of a section put into an id; only those of `names`, if any are given.

    Where a field refers to something, `identities` has that one's identity by the field's name.
    """
    found: dict[str, Any] = {}
    for name, mark in _entering(type(section)).items():
        if names and name not in names:
            continue
        value = getattr(section, name)
        if any(getattr(section, other) not in values for other, values in mark.where.items()):
            continue
        if mark.unless_default and value == type(section).model_fields[name].default:
            continue
        if mark.instead:
            found |= {key: getattr(section, other) for key, other in mark.instead.items()}
        elif mark.by_content:
            found[name] = identities[name]
        elif mark.component:
            use = Use(name=value) if isinstance(value, str) else value
            found[name] = named(mark.component, use.name, use.params)
        else:
            found[name] = value
    return found


def named(kind: type[Declared], name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """A component as it enters ids, with the distribution that gives it if that is not kdray."""
    found = component(kind, name, kind.word)
    defaults = {key: found.parameters[key].default for key in found.declared.later}
    kept = {key: value for key, value in params.items() if key not in defaults or value not in (defaults[key], {})}
    return {"name": name, "version": found.declared.version, "params": kept, **found.origin}


@functools.cache
def _entering(section: type[Section]) -> dict[str, Enters]:
    return {name: mark for name, mark in marks(section).items() if isinstance(mark, Enters)}
