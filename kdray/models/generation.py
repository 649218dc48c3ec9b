"""Greedy answers for a batch of prompts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


@torch.inference_mode()
def generate_greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], max_new_tokens: int, ends: Sequence[int] = ()
) -> list[list[int]]:
    """The new token ids for every prompt (token ids), without the end-of-sequence token or another one of `ends`.

    Fewer than `max_new_tokens` if and only if the model ended its answer there. Prompts of unequal length are
    padded on the left under an attention mask.
    """
    eos, longest = tokenizer.eos_token_id, max(map(len, prompts))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    config = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=[eos, *ends], pad_token_id=pad)
    generate: Any = model.generate
    output = generate(input_ids=ids, attention_mask=mask, generation_config=config)
    answers = output[:, longest:].tolist()
    return [list(itertools.takewhile(lambda token: token != eos and token not in ends, answer)) for answer in answers]
