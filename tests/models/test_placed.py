"""A model whose layers lie elsewhere than its ends: what a model spread over several GPUs needs, by layers that wait on
disk.

accelerate moves what goes into a layer to where the layer is, so whatever works here calls layers and never reads their
weights.
"""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from kdray.models.generation import generate_greedy
from kdray.models.head import ResponseModel
from kdray.models.likelihood import Continued, SharedPrefix
from kdray.models.load import load_folder, load_placed, weight_bytes
from tests.tiny import write_model

PROMPTS = [[5, 6, 7, 8, 9], [4], [30, 31, 32]]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """One model twice: whole, and with its layers on disk; and its tokenizer."""
    base = tmp_path_factory.mktemp("placed")
    folder = write_model(base / "model", layers=4)
    where = {
        "model.embed_tokens": "cpu",
        "model.rotary_emb": "cpu",
        "model.norm": "cpu",
        "lm_head": "cpu",
        "model.layers": "disk",
    }
    spread = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, device_map=where, offload_folder=base / "offload"
    ).eval()
    assert spread.model.layers[0].mlp.up_proj.weight.device.type == "meta"
    return *load_folder(folder), spread


def test_hidden_states_are_the_same(models):
    whole, _, spread = models
    ids = torch.tensor([[5, 6, 7, 8, 9, 10], [4, 3, 2, 1, 5, 6]])
    positions = torch.tensor([[0, 1], [0, 5], [1, 3]])
    with torch.no_grad():
        expected, got = (ResponseModel(model).hidden(ids, torch.ones_like(ids), positions) for model in (whole, spread))
    assert torch.equal(got, expected)


def test_answers_are_the_same(models):
    whole, tokenizer, spread = models
    assert generate_greedy(spread, tokenizer, PROMPTS, 6) == generate_greedy(whole, tokenizer, PROMPTS, 6)


def test_likelihoods_are_the_same(models):
    whole, _, spread = models
    questions = [Continued(prompt, [[1], [2, 3], [4, 5, 6]]) for prompt in PROMPTS]
    assert SharedPrefix(ResponseModel(spread))(questions) == SharedPrefix(ResponseModel(whole))(questions)


def test_without_several_gpus_a_model_is_where_it_was(models, tmp_path):
    folder = write_model(tmp_path / "m")
    model, _ = load_placed(folder)
    assert not hasattr(model, "hf_device_map")
    assert model.device == torch.device("cuda" if torch.cuda.is_available() else "cpu")


def test_the_room_for_weights_is_read_from_their_headers(models, tmp_path):
    model, _ = load_folder(folder := write_model(tmp_path / "m"))
    count = sum(p.numel() for p in model.parameters())  # a tied head counts once, as it is stored
    assert weight_bytes(folder) == 4 * count
    assert weight_bytes(folder, torch.bfloat16) == 2 * count
