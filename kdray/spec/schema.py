"""The grid file's JSON schema: what editors complete and check by, as `kdray schema` prints it.

pydantic writes it from the sections of a grid file; wherever a field names a component, the components that there
are take the place of a bare name: by name alone, or as a mapping with their parameters.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

from kdray.spec import declare
from kdray.spec.components import OWN_NAME, Component, component, components
from kdray.spec.declare import Declared
from kdray.spec.errors import InputError
from kdray.spec.grid import Grid
from kdray.spec.marks import marks
from kdray.spec.parameters import REQUIRED, Parameter
from kdray.spec.sections.base import Section

Schema = dict[str, Any]
USE = "#/$defs/Use"


def grid_schema() -> Schema:
    """The schema of a grid file, JSON Schema 2020-12. What is valid by it may still be refused by `kdray check`."""
    tree = Grid.model_json_schema()
    sections: dict[str, Schema] = tree["$defs"]
    kinds = _kinds(Section)
    del sections["Use"]
    for section in [tree, *sections.values()]:
        for name, field in section.get("properties", {}).items():
            section["properties"][name] = _with_components(field, kinds.get(name))
    sections |= {_key(kind): _choice(kind) for kind in sorted(set(kinds.values()), key=_key)}
    sections["SoftLabelsSection"] = _soft_labels(sections["SoftLabelsSection"])
    names = [{"const": each.name, "description": each.description} for each in components(declare.Annotations).values()]
    _set_text(sections["LensSection"]["properties"]["annotations"], names)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "kdray grid", **_untitled(tree)}


def _kinds(section: type[Section]) -> dict[str, type[Declared]]:
    """The kind of component that a section and those made of it name, by the field."""
    own = {
        name: mark.component
        for name, mark in marks(section).items()
        if mark.component and mark.component is not declare.Annotations
    }
    return functools.reduce(operator.or_, map(_kinds, section.__subclasses__()), own)


def _with_components(field: Schema, kind: type[Declared] | None) -> Schema:
    """A field's schema with the components of its kind where pydantic has `Use`, and their names as defaults."""
    if kind is None or (field.get("$ref") != USE and field.get("items") != {"$ref": USE}):
        return field
    reference = {"$ref": f"#/$defs/{_key(kind)}"}
    made = field | ({"items": reference} if "items" in field else reference)
    if "default" in made:
        default: Any = made["default"]
        made["default"] = [use["name"] for use in default] if isinstance(default, list) else default["name"]
    return made


def _choice(kind: type[Declared]) -> Schema:
    """A component of a kind: its name where that is enough, or a mapping."""
    return {"anyOf": [variant for each in components(kind).values() for variant in _variants(kind, each)]}


def _variants(kind: type[Declared], each: Component[Any]) -> list[Schema]:
    name = _name(kind, each)
    parameters = {key: _parameter(parameter) for key, parameter in each.parameters.items()}
    needed = [key for key, parameter in each.parameters.items() if parameter.default is REQUIRED]
    mapping = {"type": "object", "properties": {"name": name, **parameters}, "required": ["name", *needed]}
    mapping |= {"additionalProperties": False, "description": each.description}
    return [mapping] if needed else [name | {"description": each.description}, mapping]


def _name(kind: type[Declared], each: Component[Any]) -> Schema:
    """How a component is written: by its name, or as `lm_eval:mmlu`."""
    try:
        component(kind, each.name, kind.word)
    except InputError:
        return {"type": "string", "pattern": f"^{each.name}:."}
    if isinstance(each.declared, declare.Task) and each.declared.several:
        return {"type": "string", "pattern": f"^{each.name}(:{OWN_NAME.pattern})?$"}
    return {"const": each.name}


def _parameter(parameter: Parameter) -> Schema:
    made = parameter.type.json_schema()
    return made if parameter.default is REQUIRED else made | {"default": parameter.default}


def _soft_labels(section: Schema) -> Schema:
    """The section whose form's parameters stand beside it, `{form: topk, k: 8}`: one variant a form."""
    fields = {name: field for name, field in section["properties"].items() if name != "form"}
    form = section["properties"]["form"]
    variants = []
    for each in components(declare.Form).values():
        own = {"form": {"const": each.name, "description": each.description}}
        own |= {key: _parameter(parameter) for key, parameter in each.parameters.items()}
        required = [] if each.name == form["default"] else ["form"]
        variants.append({"properties": own | fields, "required": required, "additionalProperties": False})
    mapped = {"allOf": [{"$ref": form["$ref"]}, {"type": "object"}]}
    variants.append({"properties": {"form": mapped, **fields}, "required": ["form"], "additionalProperties": False})
    return {"type": "object", "description": section["description"], "anyOf": variants}


def _set_text(field: Schema, names: list[Schema]) -> None:
    """Put `names` in the place of any text."""
    field["anyOf"] = [*names, *(branch for branch in field["anyOf"] if branch.get("type") != "string")]


def _key(kind: type[Declared]) -> str:
    return kind.word.replace(" ", "_")


def _untitled(value: Any) -> Any:
    """Without pydantic's titles, which only say a field's name again."""
    if isinstance(value, list):
        return [_untitled(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _untitled(item) for key, item in value.items() if key != "title" or not isinstance(item, str)}
