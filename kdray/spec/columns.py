"""The columns that are read of a table, and what their cells must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kdray.spec import declare
from kdray.spec.components import declared

# a text; a text or a list of texts; a text or a list of passages (`kdray.store.passages`); whatever the table has
Holds = Literal["text", "texts", "passages", "anything"]


@dataclass(frozen=True)
class Column:
    """A column under one of `names`, whichever the table has; with a `key`, the list of texts that its mappings have
    there.
    """

    names: tuple[str, ...]
    key: str = ""
    holds: Holds = "text"

    def __str__(self) -> str:
        return "' or '".join(f"{name}.{self.key}" if self.key else name for name in self.names)


METADATA = (Column(("entry",)), Column(("language",)))  # of a table of concepts (`data.curate`)


def recipe_columns(name: str, params: Mapping[str, Any]) -> tuple[Column, ...]:
    """The columns that a recipe reads: fixed ones, and those that its parameters name."""
    reads = declared(declare.Recipe, name)
    named: dict[str, Holds] = {params[key]: "text" for key in reads.column_parameters if key not in reads.passages}
    passages: dict[str, Holds] = {params[key]: "passages" for key in reads.passages}
    holds = passages | named
    return (
        *_columns(reads.columns, "text"),
        *(Column((name,), holds=holds[name]) for name in map(params.get, reads.column_parameters) if name),
    )


def task_columns(name: str, params: Mapping[str, Any]) -> tuple[Column, ...] | None:
    """The columns that a task reads of its table, those that its parameters name among them: all where there are none;
    None for a file that it reads in its own way.
    """
    asked = declared(declare.Task, name)
    if isinstance(asked, declare.ChoiceTask) and not asked.config and not asked.named and not asked.columns:
        return None
    named = [params[key] for key in asked.column_parameters if params[key]]
    # a row that lacks something is that row's own error
    return (*_columns(asked.columns, "anything"), *(Column((name,), holds="anything") for name in named))


def _columns(texts: Sequence[str], holds: Holds) -> tuple[Column, ...]:
    """Declared columns: `a.b` is the key b of mappings in a, `a|b` is one under either name, which may hold lists."""
    columns = []
    for text in texts:
        outer, _, key = text.partition(".")
        names = tuple(outer.split("|"))
        columns.append(Column(names, key, "texts" if len(names) > 1 and holds == "text" else holds))
    return tuple(columns)
