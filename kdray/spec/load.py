"""Read a grid file, or what stands for a part of one on a command line: plain YAML, then the schema, then its
components.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kdray.spec import declare
from kdray.spec.binding import bind_components, bind_scoring
from kdray.spec.components import asks_grids_rows, bind_use, component
from kdray.spec.cross_checks import check_fields
from kdray.spec.decodings import PLAIN
from kdray.spec.errors import InputError
from kdray.spec.grid import Grid
from kdray.spec.lens import bind_lens
from kdray.spec.plain_yaml import read_yaml
from kdray.spec.sections.base import Section, Use
from kdray.spec.sections.scoring import LensSection, Scoring
from kdray.spec.validation import validated


def load_grid(path: str | Path) -> Grid:
    """The grid in the file at `path`, valid in itself (nothing outside the file is looked at).

    Raises:
        InputError: names the first field that is wrong, what was found there and what is allowed.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            "grid", f"no file {path}", "give the path of a YAML file, for example grids/quickstart.yaml"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("grid", f"{path} cannot be read ({error})", "give a UTF-8 YAML file") from None
    return parse_grid(text, str(path))


def parse_grid(text: str, where: str = "grid") -> Grid:
    """As `load_grid`, from the text itself; `where` names the file in errors about its YAML."""
    grid = bind_components(validated(Grid, read_yaml(text, where, Grid.model_fields)))
    check_fields(grid)
    return grid


class _Asked(Section):
    """The sections that stand behind `kdray score`."""

    score: Scoring
    lens: LensSection | None = None


def parse_scoring(
    tasks: str,
    metrics: str,
    decoding: str,
    lens: str | None,
    limit: int | None,
    template: str,
    *,
    choices: str = PLAIN,
    **fields: Any,
) -> tuple[Scoring, Use, LensSection | None]:
    """A section `score` from a command line, `xsum, {name: arc_easy, limit: 10}`, the template of prompts, and a lens
    by reference.

    `limit` is for tasks without their own.

    Raises:
        InputError: as for the section in a grid file, or a task that needs a grid's data.
    """
    text = f"score: {{tasks: [{tasks}], metrics: [{metrics}], decoding: [{decoding}], choices: [{choices}]}}"
    tree: dict[str, Any] = {
        "score": read_yaml(text, "--tasks, --metrics, --decoding, --choices", _Asked.model_fields)["score"] | fields
    }
    asked = validated(_Asked, tree | ({"lens": {"trained": lens}} if lens is not None else {}))
    score = asked.score
    for i, task in enumerate(score.tasks):
        found = component(declare.Task, task.name, f"score.tasks.{i}")
        if asks_grids_rows(found.declared):
            raise InputError(f"score.tasks.{i}", f"'{task.name}' is about a grid's own data", "leave it out")
        if limit is not None and "limit" in found.parameters:
            task.params.setdefault("limit", limit)
    bound = bind_scoring(score, has_lens=lens is not None)
    ready = asked.lens and bind_lens(asked.lens, bound.tasks, family="models")
    return bound, parse_use(template, declare.Template, "--template"), ready


def parse_use(text: str, kind: type[declare.Declared], field: str) -> Use:
    """A component from a command line, as in a grid file: `hhem`, or `{name: hhem, batch: 4}`.

    Raises:
        InputError: there is none of that name, or a wrong parameter.
    """
    tree = read_yaml(f"{{{kind.word}: {text}}}", field, [kind.word])
    if len(tree) != 1:
        raise InputError(field, f"'{text}'", f"name one {kind.word}")
    try:
        return bind_use(Use.model_validate(tree[kind.word]), kind, field)
    except ValidationError:
        raise InputError(field, f"'{text}'", "write a name, or {name: ..., parameter: ...}") from None


def parse_uses(text: str, kind: type[declare.Declared], field: str) -> list[Use]:
    """As `parse_use`, of any number of components: `hhem, {name: judge, model: mine}`; an empty text names none.

    Raises:
        InputError: as `parse_use`, or one is named twice.
    """
    found: list[Use] = []
    for value in read_yaml(f"{{{kind.word}: [{text}]}}", field, [kind.word]).get(kind.word) or []:
        try:
            use = bind_use(Use.model_validate(value), kind, field)
        except ValidationError:
            raise InputError(field, f"'{value}'", "write a name, or {name: ..., parameter: ...}") from None
        if use.name in [other.name for other in found]:
            raise InputError(field, f"'{use.name}' a second time", f"name every {kind.word} once")
        found.append(use)
    return found
