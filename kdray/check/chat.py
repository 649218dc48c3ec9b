"""Whether a model's chat template writes a prompt, by its file alone. Templates are code of the model's and run in a
sandbox.

transformers is too slow to import for a check. What its tokenizers add to a template's variables is not known here, so
only what the template itself refuses, or what is no template at all, is an error; the rest is seen where a prompt is
first written.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kdray.spec import declare
from kdray.spec.chat import bos_warning, kept, require_marks, require_read
from kdray.spec.components import component
from kdray.spec.errors import InputError
from kdray.spec.folders import CHAT_TEMPLATE, TOKENIZER_CONFIG, read_config, read_object, read_vocabulary
from kdray.spec.grid import Grid
from kdray.spec.sections.base import Use

TURNS = [{"role": "user", "content": "Say yes."}]


def check_prompts(grid: Grid, tasks: Mapping[str, Use], folders: Mapping[str, Path], *, trains: bool) -> list[str]:
    """What there is to be warned of in the prompts of the models in `folders`, by role; `tasks` by field.

    Raises:
        InputError: a chat template that is needed is not there, or refuses a plain question.
    """
    use, asked = grid.data.template, set(folders) if "teacher" in grid.score.references or not trains else {"student"}
    readers = set(folders) if grid.soft_labels.align else {"student"}  # of the rows: teachers, by their own templates
    needed: dict[
        str, tuple[str, set[str]]
    ] = {}  # by the field that asks for a chat template: what to do instead, and the models
    if use.name == "chat":
        answered = any(_by_template(task, field) for field, task in tasks.items())
        needed["data.template"] = (
            "use the template 'alpaca'",
            (asked if answered else set()) | (readers if trains else set()),
        )
    for field, task in tasks.items():
        if task.params.get("prompt") == "chat":
            needed[f"{field}.prompt"] = "use another prompt", asked
        if task.params.get("chat_template"):
            needed[f"{field}.chat_template"] = "leave it out", asked
    arguments = use.params.get("arguments") or {} if use.name == "chat" else {}
    for field, (allowed, roles) in needed.items():
        for role, folder in folders.items():
            if role in roles:
                check_chat_template(folder, role, arguments, field, allowed)
    if use.params.get("chatml"):
        for role, folder in folders.items():
            if (vocabulary := read_vocabulary(folder, role)) is not None:
                require_marks(vocabulary)
    recipe = grid.data.recipe.name
    warned = [bos_warning(recipe, use.name, use.params, read_config(folder)) for folder in folders.values()]
    return [f"data.template: {warning}" for warning in dict.fromkeys(warned) if warning]


def check_chat_template(folder: Path, role: str, arguments: Mapping[str, Any], field: str, allowed: str) -> None:
    """Raise InputError unless the model in `folder` has a chat template that takes one question and `arguments`."""
    if not any((folder / name).is_file() for name in (CHAT_TEMPLATE, TOKENIZER_CONFIG)):
        return  # transformers may find one elsewhere
    config = (
        read_object(folder / TOKENIZER_CONFIG, field, "give the whole tokenizer")
        if (folder / TOKENIZER_CONFIG).is_file()
        else {}
    )
    if (template := _template(folder, config)) is None:
        raise InputError(field, f"the {role} has no chat template", allowed)
    require_read(arguments, template)
    special = {
        key: value["content"] if isinstance(value, dict) else value
        for key, value in config.items()
        if key.endswith("_token")
    }
    given = {"messages": TURNS, "tools": None, "documents": None, "add_generation_prompt": True, **special, **arguments}
    try:
        prompt = _environment().from_string(template).render(given)
    except (_Refused, TemplateSyntaxError, SecurityError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(field, f"the {role}'s chat template cannot write a prompt ({reason})", allowed) from None
    except Exception:  # noqa: BLE001 - of what only transformers knows: told where the first prompt is written
        return
    if not kept(TURNS[0]["content"], prompt):
        raise InputError(field, f"the {role}'s chat template leaves out what is asked", allowed)


def _by_template(task: Use, field: str) -> bool:
    asked = component(declare.Task, task.name, field).declared
    own = isinstance(asked, declare.AnswerTask) and not asked.rows
    return own and task.params.get("prompt", "template") == "template"


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The template in a model's folder; of several the default."""
    if (folder / CHAT_TEMPLATE).is_file():
        return (folder / CHAT_TEMPLATE).read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):
        found = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}.get("default")
    return found if isinstance(found, str) else None


class _Refused(TemplateError):
    """What a template raises by `raise_exception`."""


class _Generation(Extension):
    """The tags around an assistant's turn, which some templates have for training."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own way to say it

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> None:
    raise _Refused(message)


def _environment() -> ImmutableSandboxedEnvironment:
    """Templates as transformers reads them."""
    extensions = [_Generation, "jinja2.ext.loopcontrols"]
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    made.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    made.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: datetime.datetime.now().strftime(form)}
    return made
