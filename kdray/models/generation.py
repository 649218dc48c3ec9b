"""Greedy answers for a batch of prompts."""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


@torch.inference_mode()
def generate_greedy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], max_new_tokens: int
) -> list[list[int]]:
    """The new token ids for every prompt (token ids), without the end-of-sequence token.

    Prompts of unequal length are padded on the left under an attention mask.
    """
    eos, longest = tokenizer.eos_token_id, max(map(len, prompts))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    config = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=eos, pad_token_id=pad)
    generate: Any = model.generate
    output = generate(input_ids=ids, attention_mask=mask, generation_config=config)
    answers = output[:, longest:].tolist()
    return [answer[: answer.index(eos)] if eos in answer else answer for answer in answers]
