"""Lookback-guided: of several sampled chunks the one that looks most factual to a guide, such as a Lookback Lens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdray.lens.align import context_length
from kdray.lens.guided import Sampler, decode_guided
from kdray.lens.guides import SupportGuide, open_guide
from kdray.models.generation import ends_of
from kdray.score.prompts import Prompt
from kdray.spec import declare
from kdray.spec.errors import InputError
from kdray.spec.parameters import Share

DECLARED = declare.Decoding(version=1, needs=("source",), references={"guide": ("support", "lens")})


def lookback_guided(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    /,
    *,
    guide: str,
    candidates: PositiveInt = 8,
    chunk: PositiveInt = 8,
    temperature: PositiveFloat = 0.9,
    top_p: Share | None = 0.95,
    seed: NonNegativeInt = 0,
) -> list[list[int] | str]:
    """`guide`: `file:` and a lens or a classifier on hidden states; `support`, a stand-in that needs no training; or
    `lens`, the one that the grid makes.
    """
    chosen = SupportGuide() if guide == "support" else open_guide(Path(guide.removeprefix("file:")))
    sampler = Sampler(candidates, chunk, temperature, top_p, seed)
    answers: list[list[int] | str] = []
    for prompt in prompts:
        try:
            n_context = context_length(tokenizer, prompt.input_ids, prompt.source)
        except InputError as error:  # of this prompt alone: one about a row without a text
            answers.append(str(error))
            continue
        found = decode_guided(
            model,
            prompt.input_ids,
            n_context,
            chosen,
            sampler,
            max_new_tokens,
            ends_of(model.generation_config, tokenizer),
        )
        answers.append(found.answer)
    return answers
