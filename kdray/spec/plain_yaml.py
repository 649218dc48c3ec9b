"""YAML as grid files are written: no aliases, no tags, no key twice, and words and numbers as YAML 1.2 reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import yaml
from yaml.composer import Composer, ComposerError

from kdray.spec.errors import InputError


def read_yaml(text: str, where: str, fields: Iterable[str]) -> dict[str, Any]:
    """The mapping that `text` holds; `fields` are those it may have, `where` names it in errors.

    Raises:
        InputError: it is no YAML, not plain, or no mapping.
    """
    try:
        tree = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        found = str(error.problem)
        if found == "but found another document":
            found = "a second document (---)"  # libyaml says what it expected elsewhere
        raise InputError(f"{where}:{line}", found, error.note or "write plain YAML with each key once") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(where, f"not YAML ({str(error).splitlines()[0]})", "write plain YAML") from None
    if not isinstance(tree, dict):
        found = "empty" if tree is None else f"holds a {'list' if isinstance(tree, list) else 'single value'}"
        raise InputError(where, found, f"write a mapping of the fields {', '.join(fields)}")
    return tree


class _Loader(Composer, yaml.CSafeLoader):
    """SafeLoader that refuses aliases, tags and duplicate keys, and reads plain words and numbers as YAML 1.2 does.

    So 1e-5 is a number, and `no`, 1:30, 010 and 2020-01-01 are not a bool, 90, 8 and a date. libyaml parses.
    """

    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own way to say it

    def __init__(self, stream: str) -> None:
        yaml.CSafeLoader.__init__(self, stream)
        Composer.__init__(self)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise ComposerError(None, None, f"the YAML alias *{event.anchor}", event.start_mark, "write the value out")
        if (tag := getattr(event, "tag", None)) is not None:
            raise ComposerError(None, None, f"the YAML tag {tag}", event.start_mark, "grid files use no tags")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a string", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key '{key}'", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)$", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$",
        list("-+0123456789."),
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)
