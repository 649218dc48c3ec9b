"""Lookback ratios written from their definition: step by step, from the attention matrices of eager attention in
float64.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel


@torch.no_grad()
def reference_ratios(model: PreTrainedModel, input_ids: list[int], n_context: int, n_prompt: int) -> Tensor:
    """[R, L, H]: for every response token a pass of its own over all tokens before it."""
    model.set_attn_implementation("eager")
    steps = []
    for end in range(n_prompt, len(input_ids)):
        attentions = model(
            input_ids=torch.tensor([input_ids[:end]]), output_attentions=True, use_cache=False
        ).attentions
        layers = []
        for matrix in attentions:  # [1, H, end, end]
            row = matrix[0, :, -1].double()
            context = row[:, :n_context].sum(-1) / n_context
            new = row[:, n_context:].sum(-1) / (end - n_context)
            layers.append(context / (context + new))
        steps.append(torch.stack(layers))
    return torch.stack(steps)
