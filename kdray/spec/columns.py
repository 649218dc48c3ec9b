"""The columns that are read of a table, and what their cells must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kdray.spec.components import component

# a text; a text or a list of texts; whatever the table has
Holds = Literal["text", "texts", "anything"]


@dataclass(frozen=True)
class Column:
    """A column under one of `names`, whichever the table has; with a `key`, the list of texts that its mappings have there."""

    names: tuple[str, ...]
    key: str = ""
    holds: Holds = "text"

    def __str__(self) -> str:
        return "' or '".join(f"{name}.{self.key}" if self.key else name for name in self.names)


def recipe_columns(name: str, params: Mapping[str, Any]) -> tuple[Column, ...]:
    """The columns that a recipe reads: fixed ones, and those that its parameters name."""
    declared = component("recipe", name, "data.recipe").constants
    named = [params[key] for key in declared.get("COLUMN_PARAMETERS", ())]
    return (*_columns(declared.get("COLUMNS", ()), "text"), *(Column((name,)) for name in named if name))


def task_columns(name: str) -> tuple[Column, ...] | None:
    """The columns that a task reads of its table: all where there are none; None for a file that it reads in its own way."""
    declared = component("task", name, "score.tasks").constants
    if declared["KIND"] == "choices" and not declared.get("CONFIG") and not declared.get("NAMED"):
        return None
    return _columns(declared.get("COLUMNS", ()), "anything")  # a row that lacks something is that row's own error


def _columns(declared: Sequence[str], holds: Holds) -> tuple[Column, ...]:
    """Declared columns: `a.b` is the key b of mappings in a, `a|b` is one under either name, which may hold lists."""
    columns = []
    for text in declared:
        outer, _, key = text.partition(".")
        names = tuple(outer.split("|"))
        columns.append(Column(names, key, "texts" if len(names) > 1 and holds == "text" else holds))
    return tuple(columns)
