"""Memory by formula, against what torch keeps and against a sum by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaConfig

from kdray.cost.decoder import Decoder, decoder_of
from kdray.cost.memory import Training, activations, adapters, of_answers, of_likelihoods, of_training
from kdray.models.adapters import with_lora
from tests.conftest import ROOT

ALONE = Training(workers=1, engine="ddp", stage=0, bfloat16=True, checkpointing=False, rank=None, quantised=False)
CONFIG = LlamaConfig(
    vocab_size=96,
    hidden_size=128,
    intermediate_size=352,
    num_attention_heads=8,
    num_key_value_heads=2,
    num_hidden_layers=6,
)
TOKENS = 300


def paper(name: str) -> Decoder:
    found = decoder_of(json.loads((ROOT / "tests" / "shapes" / f"{name}.json").read_text()))
    assert found
    return found


def kept(model: nn.Module, bfloat16: bool) -> int:
    """Bytes that autograd keeps of a forward pass, weights and their copies apart."""
    tensors: dict[int, Tensor] = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights and TOKENS in (
            *tensor.shape,
            tensor.numel() // max(tensor.shape),
        ):
            tensors[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bfloat16),
    ):
        model(torch.zeros(1, TOKENS, dtype=torch.long))
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors.values())


@pytest.mark.parametrize("bfloat16", [True, False])
def test_activations_are_what_autograd_keeps(bfloat16: bool) -> None:
    model, shape = AutoModelForCausalLM.from_config(CONFIG, attn_implementation="sdpa"), decoder_of(CONFIG.to_dict())
    assert shape
    how = replace(ALONE, bfloat16=bfloat16)
    assert activations(shape, how, TOKENS) == pytest.approx(kept(model.model, bfloat16), rel=0.05)
    checkpointed = activations(shape, replace(how, checkpointing=True), TOKENS)
    assert checkpointed == pytest.approx(activations(shape, how, TOKENS) / 6 + 6 * TOKENS * 128 * 4)


@pytest.mark.slow
def test_adapters_have_the_weights_that_peft_makes() -> None:
    model, shape = AutoModelForCausalLM.from_config(CONFIG), decoder_of(CONFIG.to_dict())
    assert shape
    trained = [p.numel() for p in with_lora(model, 5).parameters() if p.requires_grad]
    assert adapters(shape, 5) == sum(trained)


def test_a_training_step_by_hand() -> None:
    """Llama-3.1-8B in full on four GPUs by FSDP: 8.03e9 weights, of which 1.05e9 are the embeddings, twice 0.525e9."""
    memory = of_training(
        paper("Llama-3.1-8B-Instruct"), replace(ALONE, workers=4, engine="fsdp", checkpointing=True), 2048, 1024
    )
    parts = {name: size / 1e9 for name, size in memory.parts.items()}
    assert parts["weights"] + parts["optimiser"] == pytest.approx(12 * 8.03 / 4, rel=1e-3)  # 24.1 GB
    assert parts["gradients and copies"] == pytest.approx(8.03, rel=1e-3)  # no copies where layers are shared
    assert parts["gathered"] == pytest.approx(4 * (1.0507 + 3 * 6.98 / 32), rel=1e-3)
    assert parts["loss"] == pytest.approx(2 * 4 * 0.5253 + 8 * 1024 * 128256e-9 + 8 * 1024 * 4096e-9, rel=1e-3)
    alone = of_training(paper("Llama-3.1-8B-Instruct"), ALONE, 2048, 1024).parts
    assert alone["gradients and copies"] == pytest.approx(4 * 8.03e9, rel=1e-3)
    many = of_training(paper("Llama-3.1-8B-Instruct"), ALONE, 65536, 32768).parts  # a GB of logits in each model
    assert many["loss"] == pytest.approx(2 * 4 * 0.5253e9 + 2 * (1 << 30) + 8 * 32768 * 4096, rel=1e-3)


def test_without_shards_every_worker_holds_all() -> None:
    model = paper("Llama-2-7b-hf")
    one, two = (of_training(model, replace(ALONE, workers=n), 0, 0).parts for n in (1, 2))
    assert one["weights"] == two["weights"] == 4 * model.weights
    assert one["optimiser"] == 8 * model.weights
    assert "buckets" not in one
    assert two["buckets"] == 4 * model.weights  # DDP's gradients lie in the buckets that it sends
    assert two["gradients and copies"] == pytest.approx(2 * 6.48e9, rel=1e-2)
    zero = of_training(model, replace(ALONE, workers=2, engine="deepspeed", stage=2), 0, 0).parts
    assert zero["optimiser"] == one["optimiser"] / 2


def test_quantised_weights_take_half_a_byte() -> None:
    model = paper("Llama-3.1-70B-Instruct")
    alone = of_training(model, replace(ALONE, rank=8, quantised=True), 1, 1).parts
    assert alone["weights"] / 1e9 == pytest.approx(0.53 * 68.45 + 2 * 2.10, rel=1e-2)
    assert alone["optimiser"] == 8 * adapters(model, 8)
    assert alone["loss"] < 1e9  # a frozen head has no gradient


def test_a_model_is_loaded_whole_before_it_is_shared() -> None:
    model, how = paper("Qwen2.5-32B-Instruct"), replace(ALONE, workers=64, engine="fsdp", checkpointing=True)
    assert of_training(model, how, 1, 1).parts == {"weights, whole while they are loaded": 4 * model.weights}


def test_answers_and_likelihoods() -> None:
    model = paper("Llama-2-7b-hf")
    answers = of_answers(model, 1, 2, batch=16, tokens=1000).parts
    assert answers["weights"] == 2 * model.weights
    assert answers["keys and values"] == 2 * 32 * 32 * 128 * 2 * 16 * 1000  # 8.4 GB
    assert of_answers(model, 2, 2, 16, 1000).parts["keys and values"] == answers["keys and values"] / 2
    assert of_likelihoods(model, 1, 2, 8, 100).parts["logits"] == 6 * 8 * 100 * 32000
