"""The table of all fields of a grid file, as docs/grid.md has it and `kdray schema --markdown` prints it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

from pydantic.fields import FieldInfo

from kdray.spec.grid import Grid
from kdray.spec.marks import Enters, marks
from kdray.spec.sections.base import Section, Use

BEGIN, END = "<!-- fields -->", "<!-- end of fields -->"  # what stands around the table in the page


def grid_table() -> str:
    """Markdown: a line a field, with its default if it has one to write down, and whether what it makes has another id
    for it.
    """
    return "\n".join(["| field | meaning | id |", "| --- | --- | --- |", *_lines(Grid, "")])


def with_table(page: str) -> str:
    """`page` with the table between its marks."""
    before, _, rest = page.partition(f"{BEGIN}\n")
    return f"{before}{BEGIN}\n{grid_table()}\n{END}{rest.partition(END)[2]}"


def _lines(section: type[Section], prefix: str) -> Iterator[str]:
    """Those of a section's fields; of a section in a section only its own: what it inherits is listed elsewhere."""
    entering = {name for name, mark in marks(section).items() if isinstance(mark, Enters)}
    for name, field in section.model_fields.items():
        if prefix.count(".") < 2 or name in section.__annotations__:
            default = f" ({shown})" if (shown := _default(field)) else ""
            yield (
                f"| `{prefix}{name}`{default} | {_linked(field.description or '')} |"
                f" {'yes' if name in entering else ''} |"
            )
            for inner in _sections(field):
                yield from _lines(inner, f"{prefix}{name}.")


def _sections(field: FieldInfo) -> list[type[Section]]:
    """The section that a field holds, if it is one; those in lists and by name are described in one line."""
    kinds = [field.annotation, *(get_args(field.annotation) if type(None) in get_args(field.annotation) else ())]
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section) and kind is not Use]


def _default(field: FieldInfo) -> str:
    """A default as it is written in a grid file; nothing where none needs to be."""
    return "" if field.is_required() or field.default is None else _written(field.default)


def _written(value: Any) -> str:
    match value:
        case Use():
            return value.name
        case Section():
            return ""
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case list():
            return ", ".join(map(_written, value))
    return str(value) if value != {} else ""


def _linked(text: str) -> str:
    """`docs/scoring.md` as a link from beside it, `docs/grid.md#lens` as one within the page."""
    text = re.sub(r"docs/grid\.md(#[a-z-]+)", r"[below](\1)", text)
    return re.sub(r"docs/([a-z]+\.md)", r"[\1](\1)", text)
