"""Tiny random models of every family whose attention differs in kind."""

from __future__ import annotations

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

SIZES = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_hidden_layers": 4}
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 8}
FAMILIES: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**GROUPED),
    "qwen2": Qwen2Config(**SIZES, num_key_value_heads=2),
    "mistral": MistralConfig(**GROUPED, sliding_window=7),
    "gemma2": Gemma2Config(**GROUPED, sliding_window=7, attn_logit_softcapping=2.0, query_pre_attn_scalar=4),
    "gemma3": Gemma3TextConfig(**GROUPED, sliding_window=7, layer_types=["sliding_attention", "full_attention"] * 2),
    "gpt_neox": GPTNeoXConfig(**SIZES),
}


def tiny(family: str) -> PreTrainedModel:
    """The model of a family in float64 with weights large enough that its attention is far from even."""
    torch.manual_seed(0)
    config = FAMILIES[family]
    config.initializer_range = 0.2
    return AutoModelForCausalLM.from_config(config, dtype=torch.float64).eval()
