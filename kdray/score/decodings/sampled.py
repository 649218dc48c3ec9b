"""Sampled: tokens drawn at random, the same ones for a prompt and a seed in every run; for self-consistency, one seed a
sample.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import NonNegativeInt, PositiveFloat
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdray.models.generation import Sampling, generate_greedy
from kdray.score.prompts import Prompt
from kdray.spec import declare
from kdray.spec.parameters import Share

DECLARED = declare.Decoding(version=1, vllm=True, encoder_decoder=True)


def sampled(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    /,
    *,
    temperature: PositiveFloat = 0.9,
    top_p: Share | None = 0.95,
    seed: NonNegativeInt = 0,
) -> list[list[int]]:
    """`top_p`: draw from the fewest likeliest tokens of that probability together; null for all."""
    ids = [prompt.input_ids for prompt in prompts]
    processor = Sampling(ids, max_new_tokens, temperature, top_p, seed)
    return generate_greedy(model, tokenizer, ids, max_new_tokens, processor=processor)
