"""Pairs of an answer with better and with worse citations, for preference optimisation (SelfCite, section 5.4.2).

The chosen response has the best of the sampled citations, the rejected one the model's plain ones, with as many cited
sentences each (length balancing): else a model would learn to cite more, not better.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdray.cite.best import Writer
from kdray.cite.format import Span, Statement, parse_cites
from kdray.cite.layout import Ids, lay_out, statements_of
from kdray.cite.reward import Cited
from kdray.spec.errors import InputError

WINDOW = 10  # sentences from a cited one, among which others are cited beside it


@dataclass(frozen=True)
class Pair:
    """Two responses to a prompt, as token ids."""

    prompt: Ids
    chosen: Ids
    rejected: Ids


def pair_of(writer: Writer, row: Mapping[str, Any], seed: int) -> Pair | None:
    """The pair of a kept answer with citations; None where no statement has a better citation than the plain one.

    Raises:
        InputError: the answer is in the tokens of another model.
    """
    kept = row["cited"]["statements"]
    if not kept:
        return None
    whole = lay_out(writer.tokenizer, row["input_ids"], row["source"], row["thought_ids"])
    laid = whole.first(len(whole.sentences) - row["cited"]["cut"])
    statements = statements_of(writer.tokenizer, row["output_ids"], row["answer"])[1]
    if [len(ids) for ids in statements] != [each["tokens"] for each in kept]:
        found = f"row {row['example'] + 1} reads otherwise in this model's tokens"
        raise InputError("ANSWERS", found, "give answers of the model itself")
    count, dice = len(laid.sentences), np.random.default_rng([seed, row["example"]])
    chosen, rejected = Ids(), Ids()
    for ids, each in zip(statements, kept, strict=True):
        plain = best = _cited(each["plain"], count)
        if each["best_reward"] > each["plain_reward"]:
            best = _cited(each["best"], count)
        worse = plain if best == plain else balanced(plain, len(best), count, dice)
        chosen += (*writer.asks(ids), *writer.cites(spans_of(best)))
        rejected += (*writer.asks(ids), *writer.cites(spans_of(worse)))
    return Pair(tuple(writer.marked(laid).prompt(laid.all)), chosen, rejected) if chosen != rejected else None


def balanced(cited: Cited, count: int, n_sentences: int, dice: np.random.Generator) -> Cited:
    """`count` of a document's sentences: of the cited ones, stretch by stretch at random; or all of them and others at
    random, those first that are at most `WINDOW` sentences away from one.
    """
    if len(cited) >= count:
        stretches = [range(span.first - 1, span.last) for span in spans_of(cited)]
        order = dice.permutation(len(stretches))
        return frozenset([place for i in order for place in stretches[i]][:count])
    free = [int(place) for place in dice.permutation(n_sentences) if place not in cited]
    free.sort(key=lambda place: min((abs(place - other) for other in cited), default=0) > WINDOW)
    return cited | frozenset(free[: count - len(cited)])


def spans_of(cited: Cited) -> tuple[Span, ...]:
    """Sentences as spans, each as long as it can be."""
    alike = itertools.groupby(enumerate(sorted(cited)), lambda pair: pair[1] - pair[0])
    stretches = [[place for _, place in group] for _, group in alike]
    return tuple(Span(places[0] + 1, places[-1] + 1) for places in stretches)


def _cited(text: str, n_sentences: int) -> Cited:
    return frozenset(Statement("", parse_cites(text, n_sentences)[0]).sentences)
