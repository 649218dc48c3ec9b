"""Whether a multiple-choice task's data have right answers and enough solved examples, as far as a file can be read at
once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdray.check.benchmarks import brings_examples, check_single
from kdray.spec import declare
from kdray.spec.columns import Column, recipe_columns, task_columns
from kdray.spec.components import component
from kdray.spec.errors import InputError
from kdray.spec.refs import Reference, parse_reference
from kdray.spec.sections.base import Use
from kdray.store.records import TEXTS, Records, no_choice, open_table

Look = Callable[[Reference, str, Sequence[Column] | None], None]
AT_ONCE = 64 * 2**20  # bytes of a file that is read whole


def check_questions(use: Use, field: str, look: Look) -> None:
    """What can be said of a task's `source` and `shots_source` before anything is built; the rest is seen when requests
    are.

    `look` is what looks into a table.

    Raises:
        InputError: no row has a right answer, there are fewer examples than are to be shown, or nobody would read them.
    """
    asked = component(declare.Task, use.name, field).declared
    if not isinstance(asked, declare.ChoiceTask):
        return
    name, answer = use.name.partition(":")[2], asked.answer
    shots = {key: use.params[key] for key in ("shots", "untrained_shots") if use.params.get(key) is not None}
    refs = {
        key: parse_reference(use.params[key], f"{field}.{key}")
        for key in ("source", "shots_source")
        if use.params[key] is not None
    }
    if name:
        check_single(name, [ref.field for ref in refs.values()])
    if "shots_source" in refs:
        if use.params["shots"] == 0 and not use.params["untrained_shots"]:
            raise InputError(
                f"{field}.shots_source",
                f"'{refs['shots_source']}' with shots: 0",
                "say how many shots, or leave it out",
            )
        look(refs["shots_source"], f"{field}.shots_source", task_columns(use.name, use.params))
    if not name and not answer:
        return  # a form of file of the task's own
    counts = {key: _count(ref, answer) for key, ref in refs.items()}
    for key, count in counts.items():
        if count == 0 and answer:
            found = f"no row of {refs[key]} has its {answer[0]} among its {answer[1]}"
            raise InputError(f"{field}.{key}", found, "give rows with right answers")
    shown = "shots_source" if "shots_source" in refs else "source"
    count = None if shown == "source" and name and brings_examples(name) else counts.get(shown)
    if count is None:
        return
    most = count - (shown == "source")  # no question is its own example
    for key, wanted in shots.items():
        if wanted > max(most, 0):
            found = f"{wanted} solved examples, where {refs[shown]} has {count} questions with a right answer"
            why = " (none is its own example)" if shown == "source" else ""
            raise InputError(
                f"{field}.{key}", found, f"ask for at most {max(most, 0)}{why}, or name a larger shots_source"
            )


def check_untrained(tasks: Mapping[str, Use], *, both: bool) -> None:
    """Whether `untrained_shots` of a task, by field, tells models apart; `both`: of those scored some are trained here,
    and some are not.

    Raises:
        InputError: it does not.
    """
    for field, use in tasks.items():
        if not both and (wanted := use.params.get("untrained_shots")) is not None:
            found = f"{wanted}, where the models that are scored are not of both kinds, trained here and not"
            raise InputError(
                f"{field}.untrained_shots", found, "give shots, or score the untrained student too (score.references)"
            )


def check_answers(recipe: Use, ref: Reference) -> None:
    """Whether rows that are answered by one of their own choices all are, as far as a file can be read at once.

    Raises:
        InputError: a row has another answer, or none has one.
    """
    answer = component(declare.Recipe, recipe.name, "data.recipe").declared.answer
    if not answer or not _is_short(ref):
        return
    found = False
    with open_table(Path(ref.name), ref.field) as (file, suffix):
        if suffix not in TEXTS:
            return
        for number, row in enumerate(
            Records(file, suffix, recipe_columns(recipe.name, recipe.params), str(ref), ref.field), start=1
        ):
            given, choices = str(row.get(answer[0]) or "").strip(), _within(row, answer[1])
            if given and given not in choices:
                raise no_choice(answer[0], given, choices, ref.field, number)
            found = found or bool(given)
    if not found:
        raise InputError(ref.field, f"no row of {ref} has its {answer[0]}", "give rows with right answers")


def _count(ref: Reference, answer: Sequence[str] | None) -> int | None:
    """How many rows of a local file have a right answer, or where nothing is known of answers are there; None if that
    takes long.
    """
    if not _is_short(ref):
        return None
    with open_table(Path(ref.name), ref.field) as (file, suffix):
        if suffix not in TEXTS:
            return None
        return sum(
            answer is None or _has_answer(row, *answer) for row in Records(file, suffix, (), str(ref), ref.field)
        )


def _is_short(ref: Reference) -> bool:
    return ref.scheme == "file" and Path(ref.name).stat().st_size <= AT_ONCE


def _has_answer(row: Mapping[str, Any], column: str, among: str) -> bool:
    """Whether a row's answer is one of its choices' letters, or the number of one."""
    allowed = _within(row, among)
    if not isinstance(row.get(column), str | int):
        return False
    answer = str(row[column]).strip()
    return answer in map(str, allowed) or (answer.isdigit() and int(answer) < len(allowed))


def _within(row: Mapping[str, Any], path: str) -> list[Any]:
    """The list at `a.b` of a row; an empty one where there is none."""
    found: Any = row
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, list) else []
