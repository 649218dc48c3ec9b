"""Greedy: the likeliest token at every step."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kdray.models.generation import generate_greedy
from kdray.score.prompts import Prompt
from kdray.spec import declare

DECLARED = declare.Decoding(version=1, vllm=True, encoder_decoder=True)


def greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], max_new_tokens: int, /
) -> list[list[int]]:
    return generate_greedy(model, tokenizer, [prompt.input_ids for prompt in prompts], max_new_tokens)
