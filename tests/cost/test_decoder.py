"""Sizes of models by their configurations, against models that transformers builds of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from kdray.cost.decoder import Decoder, decoder_of
from kdray.spec.folders import read_config
from tests.conftest import ROOT

SIZES = {
    "vocab_size": 970,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 8,
    "num_hidden_layers": 3,
}
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 16}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**GROUPED),
    "tied": LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SIZES, num_key_value_heads=2),
    "qwen3": Qwen3Config(**GROUPED),
    "gemma2": Gemma2Config(**GROUPED),
    "gemma3": Gemma3TextConfig(**GROUPED),
    "phi3": Phi3Config(**SIZES, num_key_value_heads=2, pad_token_id=0),
    "gpt_neox": GPTNeoXConfig(**SIZES),
    "gpt2": GPT2Config(vocab_size=970, n_embd=64, n_layer=3, n_head=8, n_positions=128),
}


def decoder(config: PretrainedConfig, folder: Path) -> Decoder | None:
    """As kdray reads it: from the file that transformers writes."""
    config.save_pretrained(folder)
    return decoder_of(read_config(folder))


@pytest.mark.parametrize("family", CONFIGS)
def test_matrices_are_those_of_the_model(family: str, tmp_path: Path) -> None:
    found = decoder(CONFIGS[family], tmp_path)
    assert found
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIGS[family])
    assert found.weights == sum(
        weight.numel() for weight in {id(p): p for p in model.parameters()}.values() if weight.dim() > 1
    )


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "tests" / "shapes").glob("*.json"))])
def test_models_of_the_paper_are_as_large_as_their_names_say(name: str) -> None:
    found = decoder_of(json.loads((ROOT / "tests" / "shapes" / f"{name}.json").read_text()))
    said = {
        "Llama-2-7b": 6.74,
        "Llama-2-13b": 13.02,
        "Llama-3.1-8B": 8.03,
        "Llama-3.1-70B": 70.55,
        "Qwen2.5-1.5B": 1.544,
        "Qwen2.5-7B": 7.62,
        "Qwen2.5-32B": 32.76,
    }
    assert found
    assert found.weights / 1e9 == pytest.approx(
        next(size for start, size in said.items() if name.startswith(start)), rel=2e-3
    )


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_operations_are_those_that_torch_counts(family: str, tmp_path: Path) -> None:
    """Both count two for a product and its sum; torch counts attention to all keys, those of the future too."""
    found = decoder(CONFIGS[family], tmp_path)
    assert found
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(CONFIGS[family], attn_implementation="eager")
        with FlopCounterMode(display=False) as counter:
            model(input_ids=torch.zeros(2, 40, dtype=torch.long))
    assert found.forward(tokens=80, keys=40, predicted=80) == pytest.approx(counter.get_total_flops(), rel=1e-3)


def test_a_token_leaves_keys_and_values_of_every_layer(tmp_path: Path) -> None:
    found = decoder(CONFIGS["llama"], tmp_path)
    assert found
    assert found.cache(2) == 2 * 3 * 2 * 16 * 2  # keys and values, layers, heads, width, bytes
    assert found.without(1).cache(2) == 2 * 2 * 2 * 16 * 2


def test_of_other_kinds_of_layers_nothing_is_said(tmp_path: Path) -> None:
    assert decoder(MixtralConfig(**GROUPED), tmp_path) is None
    assert decoder_of({"model_type": "llama"}) is None
