"""The grid file's JSON schema: what editors complete and check by, as `kdray schema` prints it.

pydantic writes it from the sections of `kdray.spec.grid`; wherever a field names a component, the components that there
are take the place of a bare name: by name alone, or as a mapping with their parameters.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter

from kdray.spec.components import REQUIRED, Component, component, components
from kdray.spec.errors import InputError
from kdray.spec.grid import Grid

Schema = dict[str, Any]
USE = "#/$defs/Use"
KINDS = {  # of component, by the field that names it
    "recipe": "recipe",
    "template": "template",
    "form": "soft labels",
    "loss": "loss",
    "schedule": "schedule",
    "engine": "engine",
    "task": "task",
    "tasks": "task",
    "metric": "metric",
    "metrics": "metric",
    "decoding": "decoding",
}
WORDS: dict[str, Any] = {  # what annotations of components' parameters are made of
    "Scalars": dict[str, str | int | float | bool],
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "list": list,
    "Literal": Literal,
    "PositiveInt": PositiveInt,
    "NonNegativeInt": NonNegativeInt,
    "PositiveFloat": PositiveFloat,
    "NonNegativeFloat": NonNegativeFloat,
    "Share": Annotated[float, Field(gt=0, lt=1)],
}


def grid_schema() -> Schema:
    """The schema of a grid file, JSON Schema 2020-12. What is valid by it may still be refused by `kdray check`."""
    tree = Grid.model_json_schema()
    sections: dict[str, Schema] = tree["$defs"]
    del sections["Use"]
    for section in [tree, *sections.values()]:
        for name, field in section.get("properties", {}).items():
            section["properties"][name] = _with_components(field, name)
    sections |= {_key(kind): _choice(kind) for kind in dict.fromkeys(KINDS.values())}
    sections["SoftLabels"] = _soft_labels(sections["SoftLabels"])
    names = [{"const": each.name, "description": each.summary} for each in components("annotations").values()]
    _set_text(sections["Lens"]["properties"]["annotations"], names)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "kdray grid", **_untitled(tree)}


def _with_components(field: Schema, name: str) -> Schema:
    """A field's schema with the components of its kind where pydantic has `Use`, and their names as defaults."""
    if field.get("$ref") != USE and field.get("items") != {"$ref": USE}:
        return field
    reference = {"$ref": f"#/$defs/{_key(KINDS[name])}"}
    made = field | ({"items": reference} if "items" in field else reference)
    if "default" in made:
        default: Any = made["default"]
        made["default"] = [use["name"] for use in default] if isinstance(default, list) else default["name"]
    return made


def _choice(kind: str) -> Schema:
    """A component of a kind: its name where that is enough, or a mapping."""
    return {"anyOf": [variant for each in components(kind).values() for variant in _variants(kind, each)]}


def _variants(kind: str, each: Component) -> list[Schema]:
    name = _name(kind, each)
    parameters = {key: _parameter(kind, each, key) for key in each.parameters}
    needed = [key for key, parameter in each.parameters.items() if parameter.default is REQUIRED]
    mapping = {"type": "object", "properties": {"name": name, **parameters}, "required": ["name", *needed]}
    mapping |= {"additionalProperties": False, "description": each.summary}
    return [mapping] if needed else [name | {"description": each.summary}, mapping]


def _name(kind: str, each: Component) -> Schema:
    """How a component is written: by its name, or as `lm_eval:mmlu`."""
    try:
        component(kind, each.name, kind)
    except InputError:
        return {"type": "string", "pattern": f"^{each.name}:."}
    return {"const": each.name}


def _parameter(kind: str, each: Component, key: str) -> Schema:
    parameter = each.parameters[key]
    try:
        made = TypeAdapter(eval(parameter.annotation, {"__builtins__": {}}, WORDS)).json_schema()  # our own source
    except (NameError, TypeError) as error:
        raise TypeError(f"{kind} '{each.name}': the schema cannot say '{parameter.annotation}' of {key}") from error
    return made if parameter.default is REQUIRED else made | {"default": parameter.default}


def _soft_labels(section: Schema) -> Schema:
    """The section whose form's parameters stand beside it, `{form: topk, k: 8}`: one variant a form."""
    fields = {name: field for name, field in section["properties"].items() if name != "form"}
    form = section["properties"]["form"]
    variants = []
    for each in components("soft labels").values():
        own = {"form": {"const": each.name, "description": each.summary}}
        own |= {key: _parameter("soft labels", each, key) for key in each.parameters}
        required = [] if each.name == form["default"] else ["form"]
        variants.append({"properties": own | fields, "required": required, "additionalProperties": False})
    mapped = {"allOf": [{"$ref": form["$ref"]}, {"type": "object"}]}
    variants.append({"properties": {"form": mapped, **fields}, "required": ["form"], "additionalProperties": False})
    return {"type": "object", "description": section["description"], "anyOf": variants}


def _set_text(field: Schema, names: list[Schema]) -> None:
    """Put `names` in the place of any text."""
    field["anyOf"] = [*names, *(branch for branch in field["anyOf"] if branch.get("type") != "string")]


def _key(kind: str) -> str:
    return kind.replace(" ", "_")


def _untitled(value: Any) -> Any:
    """Without pydantic's titles, which only say a field's name again."""
    if isinstance(value, list):
        return [_untitled(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _untitled(item) for key, item in value.items() if key != "title" or not isinstance(item, str)}
