"""A row of a benchmark's data, as lm-eval's task file reads it: whether it can be asked, and what it asks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jinja2
import jinja2.meta
from lm_eval.api.task import ConfigurableTask
from lm_eval.utils import env


def _not_null(value: Any) -> Any:
    if value is None:
        raise ValueError("a null where a text should be")
    return value


STRICT = env.overlay(finalize=_not_null)  # lm-eval's own templates write a null as the word None
# lm-eval compiles a template again for every row, about 1 ms each: nearly all of the time that prompts with many
# examples take
env.from_string = functools.lru_cache(env.from_string)  # type: ignore[method-assign]


def fault(task: ConfigurableTask, doc: dict[str, Any]) -> str:
    """Why a document cannot be asked, or has no right answer; empty if all is well.

    Where a task counts its results in its own way, what is right is left to it.
    """
    counted_here = not callable(task.config.process_results)
    try:
        _refuse_nothing(task, task.config.doc_to_text, doc)
        if counted_here:
            _refuse_nothing(task, task.config.doc_to_target, doc)
        text, target = task.doc_to_text(doc), task.doc_to_target(doc)
        choices = task.doc_to_choice(doc) if task.config.doc_to_choice is not None else None
    except Exception as error:  # noqa: BLE001 - whatever a template, or a function of lm-eval's, makes of a row that lacks something
        return said(error)
    if not isinstance(text, str | int):
        return "no question"
    if not counted_here:
        return ""
    if choices is None:
        missing = target is None or (task.OUTPUT_TYPE == "generate_until" and target in ("", []))
        return "no right answer" if missing else ""
    if (
        not isinstance(choices, list)
        or not choices
        or not all(isinstance(choice, str) and choice for choice in choices)
    ):
        return "no choices, or an empty one"
    gold = text if isinstance(text, int) else target
    return "" if _is_right(gold, choices) else f"the right answer {gold!r} is none of {len(choices)} choices"


def question_text(task: ConfigurableTask, doc: dict[str, Any], template: Any, whatever_choices: bool) -> str:
    """What a document asks, without regard to case and white space; '' where it cannot be said.

    `whatever_choices`: the same question with other choices is the same, also where the prompt lists them.
    """
    text = _read(task.doc_to_text, doc, template)
    choices = _read(task.doc_to_choice, doc) if task.OUTPUT_TYPE == "multiple_choice" else []
    if text is None or choices is None:
        return ""
    query = task.config.doc_to_decontamination_query
    if isinstance(text, int) or not text.strip():  # the question lies in the choices
        text = _read(task.resolve_field, doc, query) if isinstance(query, str) else " ".join(choices)
    elif whatever_choices and choices:
        apart = _read(task.doc_to_text, _blank(doc, len(choices)), template)
        text = apart if apart and apart != _read(task.doc_to_text, _blank(doc), template) else text
    return " ".join(str(text).split()).casefold()


def said(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:160]}"


def _is_right(gold: Any, choices: list[str]) -> bool:
    """Whether `gold` is a choice, the number of one, or several numbers."""
    if isinstance(gold, str):
        return gold in choices
    numbers = gold if isinstance(gold, list) else [gold]
    return bool(numbers) and all(isinstance(number, int) and 0 <= number < len(choices) for number in numbers)


def _refuse_nothing(task: ConfigurableTask, template: Any, doc: dict[str, Any]) -> None:
    """Raise ValueError where a template would write the word None for a null, or finds all that it reads to be
    blank.
    """
    if not isinstance(template, str):
        return
    names = {template} if template in task.features else _names(template)
    if names and all(doc.get(name) is None or not str(doc[name]).strip() for name in names):
        raise ValueError(f"no {' or '.join(sorted(names))}")
    if template not in task.features:
        _template(template).render(**doc)


@functools.cache
def _template(text: str) -> jinja2.Template:
    return STRICT.from_string(text)


@functools.cache
def _names(text: str) -> frozenset[str]:
    """The columns that a template reads."""
    return frozenset(jinja2.meta.find_undeclared_variables(STRICT.parse(text)))


def _read(read: Callable[..., Any], *of_document: Any) -> Any:
    """What a function of lm-eval's reads in a document; None if it finds nothing there."""
    try:
        return read(*of_document)
    except Exception:  # noqa: BLE001 - as in `fault`
        return None


def _blank(value: Any, count: int | None = None) -> Any:
    """A document with blanks for texts: for those in its lists of `count`, which are its choices and their letters, or
    for all.
    """
    if isinstance(value, dict):
        return {name: _blank(part, count) for name, part in value.items()}
    if isinstance(value, list) and count in (None, len(value)) and all(isinstance(part, str) for part in value):
        return [""] * len(value)
    return "" if count is None and isinstance(value, str) else value
