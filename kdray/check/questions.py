"""Whether a multiple-choice task's data have right answers and enough solved examples, as far as a file can be read at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdray.check.benchmarks import brings_examples, check_single
from kdray.spec import declare
from kdray.spec.columns import Column, task_columns
from kdray.spec.components import component
from kdray.spec.errors import InputError
from kdray.spec.grid import Use
from kdray.spec.refs import Reference, parse_reference
from kdray.store.records import TEXTS, Records, open_table

Look = Callable[[Reference, str, Sequence[Column] | None], None]
AT_ONCE = 64 * 2**20  # bytes of a file that is read whole


def check_questions(use: Use, field: str, look: Look) -> None:
    """What can be said of a task's `source` and `shots_source` before anything is built; the rest is seen when requests are.

    `look` is what looks into a table.

    Raises:
        InputError: no row has a right answer, there are fewer examples than are to be shown, or nobody would read them.
    """
    asked = component(declare.Task, use.name, field).declared
    if not isinstance(asked, declare.ChoiceTask):
        return
    name, answer, shots = use.name.partition(":")[2], asked.answer, use.params["shots"]
    refs = {key: parse_reference(use.params[key], f"{field}.{key}") for key in ("source", "shots_source") if use.params[key] is not None}
    if name:
        check_single(name, [ref.field for ref in refs.values()])
    if "shots_source" in refs:
        if shots == 0:
            raise InputError(f"{field}.shots_source", f"'{refs['shots_source']}' with shots: 0", "say how many shots, or leave it out")
        look(refs["shots_source"], f"{field}.shots_source", task_columns(use.name))
    if not name and not answer:
        return  # a form of file of the task's own
    counts = {key: _count(ref, answer) for key, ref in refs.items()}
    for key, count in counts.items():
        if count == 0 and answer:
            found = f"no row of {refs[key]} has its {answer[0]} among its {answer[1]}"
            raise InputError(f"{field}.{key}", found, "give rows with right answers")
    shown = "shots_source" if "shots_source" in refs else "source"
    count = None if shown == "source" and name and brings_examples(name) else counts.get(shown)
    if not shots or count is None:
        return
    most = count - (shown == "source")  # no question is its own example
    if shots > most:
        found = f"{shots} solved examples, where {refs[shown]} has {count} questions with a right answer"
        why = " (none is its own example)" if shown == "source" else ""
        raise InputError(f"{field}.shots", found, f"ask for at most {max(most, 0)}{why}, or name a larger shots_source")


def _count(ref: Reference, answer: Sequence[str] | None) -> int | None:
    """How many rows of a local file have a right answer, or where nothing is known of answers are there; None if that takes long."""
    if ref.scheme != "file" or Path(ref.name).stat().st_size > AT_ONCE:
        return None
    with open_table(Path(ref.name), ref.field) as (file, suffix):
        if suffix not in TEXTS:
            return None
        return sum(answer is None or _has_answer(row, *answer) for row in Records(file, suffix, (), str(ref), ref.field))


def _has_answer(row: Mapping[str, Any], column: str, among: str) -> bool:
    """Whether a row's answer is one of its choices' letters, or the number of one."""
    allowed: Any = row
    for name in among.split("."):
        allowed = allowed.get(name) if isinstance(allowed, dict) else None
    if not isinstance(allowed, list) or not isinstance(row.get(column), str | int):
        return False
    answer = str(row[column]).strip()
    return answer in map(str, allowed) or (answer.isdigit() and int(answer) < len(allowed))
