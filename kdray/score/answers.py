"""Scores of kept answers: every metric over all of them, a row an answer, and means with standard errors.

A metric is a function `name(answers, **parameters)`, or a class made with a `Given` and the parameters whose
instances are called with the answers. Either returns one mapping an answer: numbers under the names in its
`scores`, and whatever else is worth keeping of a row, such as spans. An answer that a metric says nothing of has
an empty mapping, one that it failed on has `error`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import torch

from kdray.data.estimates import mean
from kdray.models.loaded import Loaded
from kdray.spec import declare
from kdray.spec.components import load
from kdray.store.done import require_intact

Scores = dict[str, dict[str, float]]
Metric = Callable[[Sequence["Answer"]], list[dict[str, Any]]]
OF_EVERY_ROW = ("example", "empty", "error")
FATAL = (
    OSError,
    MemoryError,
    torch.OutOfMemoryError,
)  # the machine's or the network's fault: another attempt may do better


@dataclass(frozen=True)
class Answer:
    """What a model said to what it was asked. `source` is the text that it must be true to, as the model saw it."""

    text: str
    question: str = ""
    source: str = ""
    references: Sequence[str] = ()
    wrong: Sequence[str] = ()
    samples: Sequence[str] = ()  # other answers to the same prompt, drawn at random
    input_ids: Sequence[int] = ()  # the prompt's, where the model's tokens are known
    thought_ids: Sequence[int] = ()
    output_ids: Sequence[int] = ()
    cited: Mapping[str, Any] | None = None  # its statements with their citations, by a decoding that cites


@dataclass(frozen=True)
class Given:
    """What a metric that is a class is made with: the folders of its models by parameter, where it may keep things, and
    the model that answered, if it asks that.
    """

    models: Mapping[str, Path]
    device: torch.device | str = "cpu"
    cache: Path | None = None
    answerer: Loaded | None = None


def load_metric(name: str, params: Mapping[str, Any], given: Given) -> Metric:
    """The metric `name`, ready to be called.

    Raises:
        InputError: a model that it scores with is not what was sealed.
    """
    for folder in given.models.values():
        require_intact(folder)
    made: Any = load(declare.Metric, name)
    return made(given, **params) if isinstance(made, type) else functools.partial(made, **params)


def score_answers(
    kept: Sequence[Mapping[str, Any]], metrics: Sequence[Metric], *, count_empty: bool, counts: Sequence[str] = ()
) -> tuple[Scores, list[dict[str, Any]]]:
    """Score the rows of a `generate` artifact.

    Args:
        kept: mappings with `example`, `answer` and `error`, and the fields of an `Answer` by name; `thought` and
            `thought_end` where there is a thought.
        count_empty: whether `empty`, the percentage of answers without a word, is among the scores, and `unfinished`,
            that of answers which are all thought, without its end.
        counts: numbers of rows that are counted and are no scores.

    Returns:
        {metric: {value, stderr, n}}, and one row an answer, with None where a metric has no value. A mean is over the
        answers that have a value; where some have none because of an error, `failed` is their percentage.

    Raises:
        ValueError: not one answer could be scored; it says why the first could not.
    """
    rows: list[dict[str, Any]] = [
        dict(zip(OF_EVERY_ROW, (row["example"], not row["answer"], row.get("error")), strict=True)) for row in kept
    ]
    if any(row.get("id") for row in kept):
        rows = [row | {"id": of.get("id")} for row, of in zip(rows, kept, strict=True)]
    usable = [i for i, row in enumerate(rows) if not row["error"]]
    answers = [answer_of(kept[i]) for i in usable]
    for metric in metrics:
        for i, values in zip(usable, apply(metric, answers), strict=True):
            rows[i] |= {key: value for key, value in values.items() if key != "error"}
            rows[i]["error"] = rows[i]["error"] or values.get("error")
    failed = [row["error"] for row in rows if row["error"]]
    if len(failed) == len(rows):
        raise ValueError(f"no answer could be scored: {failed[0] if failed else 'there is none'}")
    names = list(dict.fromkeys(name for row in rows for name in row))
    rows = [{name: row.get(name) for name in names} for row in rows]
    scores: Scores = {}
    for name in (name for name in names[len(OF_EVERY_ROW) :] if name not in counts):
        values = [float(value) for row in rows if isinstance(value := row[name], Real)]
        if values:
            scores[name] = mean(values)
    if count_empty:
        scores["empty"] = mean([100.0 * (not answer.text) for answer in answers])
        scores["unfinished"] = mean([100.0 * is_unfinished(kept[i]) for i in usable])
    if failed:
        scores["failed"] = mean([100.0 * (row["error"] is not None) for row in rows])
    return scores, rows


def is_unfinished(row: Mapping[str, Any]) -> bool:
    """Whether the model was still thinking when it was stopped."""
    return row.get("thought") is not None and row.get("thought_end") is None


def answer_of(row: Mapping[str, Any]) -> Answer:
    """A row of a `generate` artifact as metrics see it. A blank reference is none: nothing can be compared with it."""
    references, wrong = ([text for text in row[name] if text.strip()] for name in ("references", "wrong"))
    said = (row["answer"], row["question"], row["source"], references, wrong, row.get("samples") or ())
    tokens = (row.get(name) or () for name in ("input_ids", "thought_ids", "output_ids"))
    return Answer(*said, *tokens, cited=row.get("cited"))


def apply(metric: Metric, answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """The metric over all answers at once or, where that raises, over one after the other, so that one spoils no
    other.
    """
    try:
        return [_of_numbers(row) for row in metric(answers)]
    except FATAL:
        raise
    except Exception:  # noqa: BLE001 - found again, and told, in the row that it belongs to
        return [_apply_to_one(metric, answer) for answer in answers]


def _of_numbers(row: dict[str, Any]) -> dict[str, Any]:
    """What a metric says of an answer; an error where a number of it is none, as of a model that overflows."""
    wrong = [name for name, value in row.items() if isinstance(value, Real) and not math.isfinite(value)]
    return {"error": f"{wrong[0]} is {row[wrong[0]]}, no number"} if wrong else row


def _apply_to_one(metric: Metric, answer: Answer) -> dict[str, Any]:
    try:
        return _of_numbers(metric([answer])[0])
    except FATAL:
        raise
    except Exception as failure:  # noqa: BLE001 - kept in the row
        return {"error": f"{type(failure).__name__}: {failure}"}
