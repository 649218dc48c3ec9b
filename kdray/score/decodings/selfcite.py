"""SelfCite: answers that are drawn at random, and behind each of their statements the best of several citations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdray.cite.best import Candidates, CitedStatement, Manner, Writer, cite
from kdray.cite.format import write_cites
from kdray.cite.layout import lay_out, statements_of
from kdray.cite.reward import Reader
from kdray.models.generation import Sampling, generate_greedy
from kdray.models.loaded import Loaded
from kdray.score.prompts import Prompt
from kdray.spec import declare
from kdray.spec.errors import InputError
from kdray.spec.folders import window_in
from kdray.spec.parameters import Share

DECLARED = declare.Decoding(version=2, needs=("source",), cites=True)


def selfcite(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    /,
    *,
    candidates: PositiveInt = 10,
    limit: PositiveInt = 384,
    temperature: PositiveFloat = 0.95,
    top_p: Share | None = 0.7,
    cite_temperature: PositiveFloat = 1.2,
    cite_top_p: Share | None = 0.9,
    cite_tokens: PositiveInt = 32,
    window: PositiveInt | None = None,
    seed: NonNegativeInt = 0,
) -> list[list[int]]:
    """`candidates`: citations of which the best is kept, unless it cites several sentences of more than `limit` tokens;
    each has at most `cite_tokens`. `window`: the most tokens of a prompt with marks, answer and citations, at most the
    model's own.
    """
    ids = [prompt.input_ids for prompt in prompts]
    processor = Sampling(ids, max_new_tokens, temperature, top_p, seed)
    return generate_greedy(model, tokenizer, ids, max_new_tokens, processor=processor)


def citations(
    loaded: Loaded,
    row: Mapping[str, Any],
    /,
    *,
    candidates: int,
    limit: int,
    temperature: float,
    top_p: float | None,
    cite_temperature: float,
    cite_top_p: float | None,
    cite_tokens: int,
    window: int | None,
    seed: int,
) -> dict[str, Any]:
    """Of a kept answer; none where its prompt has no document to cite.

    Raises:
        InputError: the model cannot be asked for rewards.
    """
    tokenizer, writer = loaded.tokenizer, Writer(loaded.tokenizer)
    try:
        whole = lay_out(tokenizer, row["input_ids"], row["source"], row["thought_ids"])
    except InputError:
        return {"cut": 0, "statements": []}
    try:
        read = Reader(loaded.shared)
    except InputError as error:
        raise InputError("score.decoding.selfcite", error.found, "leave selfcite out for such a model") from None
    texts, statements = statements_of(tokenizer, row["output_ids"], row["answer"])
    own = window_in(loaded.model.config.to_dict())
    laid = writer.within(whole, statements, cite_tokens, min((size for size in (window, own) if size), default=None))
    how = Candidates(
        candidates, Manner(temperature, top_p), Manner(cite_temperature, cite_top_p), cite_tokens, limit, seed
    )
    found = cite(loaded.model, read, writer, laid, list(zip(texts, statements, strict=True)), how) if laid.texts else []
    return {"cut": len(whole.sentences) - len(laid.sentences), "statements": [_kept(each) for each in found]}


def _kept(statement: CitedStatement) -> dict[str, Any]:
    sound = [candidate.sound for candidate in statement.candidates]
    return {
        "text": statement.text,
        "tokens": statement.n_tokens,
        "plain": write_cites(statement.plain.spans),
        "plain_reward": statement.plain_reward.total,
        "best": write_cites(statement.candidates[statement.best].spans),
        "best_reward": statement.rewards[statement.best].total,
        "sound": sum(sound) / len(sound),
    }
