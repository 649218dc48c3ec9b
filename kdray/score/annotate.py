"""Hallucinated spans in answers, found by a metric of factual consistency.

A metric that names spans is taken at its word, and one about right answers scores a `whole` answer. Any other scores an
answer sentence by sentence. What is scored below a threshold is hallucinated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kdray.data.sentences import split
from kdray.lens.annotations import Annotated
from kdray.score.answers import Answer, Metric, answer_of, apply
from kdray.spec import declare
from kdray.spec.components import declared

UNNAMED = "(the metric calls it false and names nothing)"


def annotate(
    kept: Sequence[Mapping[str, Any]], metric: Metric, name: str, threshold: float
) -> tuple[list[Annotated], dict[str, str]]:
    """The rows of a `generate` artifact as annotated responses, with their own ids; `metric` is the one called `name`.

    A thought before an answer becomes the end of its prompt. Left out are answers without a word or a source, and those
    that the metric failed on: these are the second value, by id, with the reason. One that it calls false without
    naming a span is `unfound`, not clean.
    """
    says = declared(declare.Metric, name)
    rows = [(row, answer_of(row)) for row in kept if row["answer"] and row["source"] and not row.get("error")]
    answers = [answer for _, answer in rows]
    find = _named if says.spans else _whole if says.whole else _by_sentence
    found = find(answers, metric, says.scores[0], threshold)
    failed = {str(row["example"]): spans for (row, _), spans in zip(rows, found, strict=True) if isinstance(spans, str)}
    annotated = [
        Annotated(
            id=str(row["example"]),
            document=row["source"],
            response=row["answer"],
            spans=tuple(sorted(spans or ())),
            unfound=(UNNAMED,) if spans is None else (),
            input_ids=(
                *row["input_ids"],
                *row.get("thought_ids", ()),
            ),  # a thought is read, and its tokens are not the answer's
            output_ids=tuple(row["output_ids"]),
        )
        for (row, _), spans in zip(rows, found, strict=True)
        if not isinstance(spans, str)
    ]
    return annotated, failed


Spans = list[tuple[int, int]] | None  # None: something is wrong with the answer, and the metric does not say what


def _named(answers: Sequence[Answer], metric: Metric, score: str, threshold: float) -> list[Spans | str]:
    """Of every answer the spans that the metric names, or why it failed."""
    found: list[Spans | str] = []
    for row in apply(metric, answers):
        if score not in row:
            found.append(str(row.get("error", "it says nothing")))
        else:
            spans = [(int(begin), int(end)) for begin, end in row["spans"] if begin < end]
            found.append(spans if spans or row[score] else None)
    return found


def _whole(answers: Sequence[Answer], metric: Metric, score: str, threshold: float) -> list[Spans | str]:
    """Of every answer all of it, if the metric scores it below `threshold`, or why it failed."""
    found: list[Spans | str] = []
    for answer, row in zip(answers, apply(metric, answers), strict=True):
        if score not in row:
            found.append(str(row.get("error", "it says nothing")))
        else:
            found.append([(0, len(answer.text))] if row[score] < threshold else [])
    return found


def _by_sentence(answers: Sequence[Answer], metric: Metric, score: str, threshold: float) -> list[Spans | str]:
    """Of every answer the sentences that the metric scores below `threshold`, or why it failed on one of them."""
    places = [sentence_spans(answer.text) for answer in answers]
    pairs = zip(answers, places, strict=True)
    sentences = [replace(answer, text=answer.text[begin:end]) for answer, spans in pairs for begin, end in spans]
    rows = iter(apply(metric, sentences))
    found: list[Spans | str] = []
    for spans in places:
        scored = [(span, next(rows)) for span in spans]
        failed = [str(row.get("error", "it says nothing")) for _, row in scored if score not in row]
        found.append(failed[0] if failed else [span for span, row in scored if row[score] < threshold])
    return found


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """[begin, end) of each sentence of `text`."""
    spans, end = [], 0
    for sentence in split(text):
        begin = text.index(sentence, end)
        end = begin + len(sentence)
        spans.append((begin, end))
    return spans
