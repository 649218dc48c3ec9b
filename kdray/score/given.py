"""Answers that somebody else's models gave, from a file: read, and cut to the rows that all models answered.

A row has `id`, `source` (the text that its answer must be true to, or a list of passages), `answer` and, if there are
any, `reference` (a right answer, or several) and `model`. Ids tell which answers of several models belong together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdray.score.rows import Unusable, document_in, text_in, texts_in
from kdray.spec.errors import InputError
from kdray.store.records import TEXTS, Records, open_table

FIELD = "--answers"
NEEDED, OPTIONAL = ("id", "source", "answer"), ("reference", "model")
NAMED = 3  # ids that a line names
UNNAMED = "answers"  # a model's name where the file has none


@dataclass(frozen=True)
class GivenAnswers:
    """By model the rows of its answers, as those of kept ones, in one order of ids; and what of the file is left out, a
    line each.
    """

    rows: Mapping[str, list[dict[str, Any]]]
    notes: Sequence[str]

    @property
    def has_references(self) -> bool:
        """Whether any row has a right answer to be compared with."""
        return any(row["references"] for row in next(iter(self.rows.values())))


def read_given(path: Path) -> GivenAnswers:
    """The answers in a json, jsonl or csv file, of the ids that all of its models answered.

    Raises:
        InputError: no such columns; a row without an id, or with one that its model has answered; a source or
            references that differ between models; no id that all models answered.
    """
    by_model: dict[str, dict[str, dict[str, Any]]] = {}
    places: dict[tuple[str, str], int] = {}
    first: dict[str, tuple[int, dict[str, Any]]] = {}
    for number, raw in enumerate(_records(path), start=1):
        row = _row(raw, number)
        model, key = row.pop("model"), row["id"]
        if (before := places.setdefault((model, key), number)) != number:
            of = f" of the model '{model}'" if model != UNNAMED else ""
            raise InputError(FIELD, f"the id '{key}' twice{of}, in rows {before} and {number}", _once(model))
        earlier, asked = first.setdefault(key, (number, row))
        for name in ("source", "references"):
            if asked[name] != row[name]:
                found = f"the id '{key}' with two {name.rstrip('s')}s, in rows {earlier} and {number}"
                raise InputError(FIELD, found, "one id is one text and what is right about it, for all models")
        by_model.setdefault(model, {})[key] = row
    common = [key for key in first if all(key in answered for answered in by_model.values())]
    if not common:
        found = f"no id that all of {', '.join(by_model)} answered"
        raise InputError(FIELD, found, "give the same rows the same ids, or one model a file")
    numbered = {
        model: [answered[key] | {"example": i} for i, key in enumerate(common)] for model, answered in by_model.items()
    }
    return GivenAnswers(numbered, list(_notes(by_model, list(first), common)))


def _once(model: str) -> str:
    if model == UNNAMED:
        return "give every row an id of its own, or say in a column 'model' whose answer it is"
    return "give every row of a model an id of its own"


def _records(path: Path) -> Iterable[dict[str, Any]]:
    with open_table(path, FIELD) as (file, suffix):
        if suffix not in TEXTS:
            raise InputError(FIELD, f"{path} is a {suffix} file", f"write it as {', '.join(TEXTS)}")
        records = Records(file, suffix, (), str(path), FIELD)
        rows = list(records)
    for name in NEEDED:
        if name not in records.seen:
            wanted = f"it has {', '.join(records.seen)}; a row is {', '.join(NEEDED)} and perhaps {', '.join(OPTIONAL)}"
            raise InputError(FIELD, f"no column '{name}' in {path}", wanted)
    return rows


def _row(raw: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A row as kept answers are; one whose source or references cannot be read has the reason as its error."""
    cells: dict[str, Any] = {**dict.fromkeys((*NEEDED, *OPTIONAL)), **raw}
    try:
        key, answer, model = (text_in(cells, name).strip() for name in ("id", "answer", "model"))
    except Unusable as wrong:
        raise InputError(FIELD, f"{wrong} in row {number}", "ids, answers and models are texts") from None
    if not key:
        raise InputError(FIELD, f"row {number} has no id", "give every row an id: it tells which answers go together")
    row: dict[str, Any] = {"id": key, "model": model or UNNAMED, "answer": answer, "question": "", "wrong": []}
    row |= {"source": "", "references": [], "error": None, "thought": None, "thought_end": None}
    try:
        row |= {"source": document_in(cells, "source").strip(), "references": texts_in(cells, "reference")}
    except Unusable as wrong:
        row["error"] = str(wrong)
    return row


def _notes(by_model: Mapping[str, Mapping[str, Any]], every: Sequence[str], common: Sequence[str]) -> Iterable[str]:
    for model, answered in by_model.items():
        if lacking := [key for key in every if key not in answered]:
            shown = ", ".join(lacking[:NAMED]) + (f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else "")
            yield f"{model} has no answer to {len(lacking)} of {len(every)} ids: {shown}"
    if len(common) < len(every):
        yield f"all numbers are over the {len(common)} ids that every model answered"
