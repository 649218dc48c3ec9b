"""Decodings: how a model's answers are made from its predictions. One file each.

A decoding is a function from a model, its tokenizer, prompts and the greatest number of new tokens to the answers'
token ids, without the token that ends them: fewer than that number if and only if the model ended its answer there.
What it gives for a prompt depends on that prompt and on its parameters alone, never on the other prompts of a batch,
but for rounding: in bfloat16 on a GPU the shape of a batch may decide between two tokens that are about as likely.
In place of an answer it may say why it has none. What it cites is no part of an answer: it cites for one that is told
apart from its thought and cut at its stops.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdray.models.loaded import Loaded
from kdray.score.prompts import Prompt
from kdray.spec import declare
from kdray.spec.components import declared, load, module_of


class Decoding(Protocol):
    """Answers prompts."""

    def __call__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Prompt],
        max_new_tokens: int,
        /,
    ) -> Sequence[list[int] | str]: ...


class Likelihoods(Protocol):
    """Scores the choices of a question: of each the sum over its tokens, in nats, and whether they are the
    likeliest.
    """

    def __call__(
        self, model: PreTrainedModel, context: Sequence[int], choices: Sequence[Sequence[int]], /
    ) -> list[tuple[float, bool]]: ...


class Citations(Protocol):
    """Cites the document for an answer: from a row of kept answers to what stands in its column `cited`."""

    def __call__(self, loaded: Loaded, row: Mapping[str, Any], /) -> dict[str, Any]: ...


def open_citations(name: str, params: Mapping[str, Any]) -> Citations | None:
    """How the decoding `name` cites: its file's function `citations`, with parameters; None where it does not."""
    if not declared(declare.Decoding, name).cites:
        return None
    return functools.partial(module_of(declare.Decoding, name).citations, **params)


def open_likelihoods(name: str, params: Mapping[str, Any]) -> Likelihoods:
    """How the decoding `name`, one that declares `choices`, scores them: its file's function `likelihoods`, with
    parameters.
    """
    return functools.partial(module_of(declare.Decoding, name).likelihoods, **params)


def open_decoding(name: str, params: Mapping[str, Any]) -> Decoding:
    """The decoding `name` with its parameters."""
    return functools.partial(load(declare.Decoding, name), **params)
