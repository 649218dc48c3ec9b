"""What model folders say of themselves: layers, heads and windows, under whatever names."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from kdray.models.load import FILES
from kdray.spec.folders import TABLES, TOKENIZER_FILES, read_config, tokenizer_digest, window_of

SIZES = {"vocab_size": 60, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
TOKENS = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 2}
GPT = {"vocab_size": 60, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 16}
TABLED: dict[str, dict[str, Any]] = {  # families that cannot read beyond their window, so that it is seen where it ends
    "GPT2": GPT,
    "GPTBigCode": GPT,
    "GPTJ": GPT | {"rotary_dim": 4},
    "GPTNeo": SIZES
    | {"num_layers": 1, "num_heads": 2, "attention_types": [[["global"], 1]], "max_position_embeddings": 16},
    "OPT": SIZES | {"ffn_dim": 8, "word_embed_proj_dim": 8, "max_position_embeddings": 16},
    "BioGpt": SIZES | {"max_position_embeddings": 16},
    "Mpt": {"vocab_size": 60, "d_model": 8, "n_heads": 2, "n_layers": 1, "max_seq_len": 16},
    "Roberta": SIZES | {"max_position_embeddings": 18},
}
ENDLESS: dict[str, dict[str, Any]] = {
    "Bloom": {"vocab_size": 60, "hidden_size": 8, "n_layer": 1, "n_head": 2, "seq_length": 16},
    "Falcon": {**SIZES, "alibi": True, "max_position_embeddings": 16},
}


def made(name: str, fields: dict[str, Any], folder: Path) -> PreTrainedModel:
    config = getattr(transformers, f"{name}Config")(**TOKENS | fields)
    config.save_pretrained(folder)
    return (AutoModel if name == "Roberta" else AutoModelForCausalLM).from_config(config).eval()


@torch.no_grad()
@pytest.mark.parametrize("name", TABLED)
def test_a_model_reads_its_window_and_no_token_more(name: str, tmp_path: Path) -> None:
    model = made(name, TABLED[name], tmp_path)
    assert window_of(tmp_path) == 16
    model(input_ids=torch.full((1, 16), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, 17), 5))


@torch.no_grad()
@pytest.mark.parametrize("name", ENDLESS)
def test_a_model_that_knows_distances_alone_has_no_window(name: str, tmp_path: Path) -> None:
    model = made(name, ENDLESS[name], tmp_path)
    assert window_of(tmp_path) is None
    assert model(input_ids=torch.full((1, 40), 5)).logits.isfinite().all()


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"model_type": "llama", "max_position_embeddings": 4096}, 4096),
        ({"model_type": "llama"}, None),
        ({"model_type": "llama", "max_position_embeddings": None}, None),
        ({"model_type": "gpt2", "n_positions": 128, "n_ctx": 1024}, 128),
        ({"model_type": "gpt2"}, 1024),
        ({"model_type": "gpt2", "n_ctx": 512}, 512),
        ({"model_type": "falcon", "alibi": False, "max_position_embeddings": 2048}, 2048),
        ({"model_type": "kimi_linear", "model_max_length": 99}, 99),
        ({"model_type": "other", "max_sequence_length": 99}, 99),
        ({"model_type": "gemma3", "max_position_embeddings": 7, "text_config": {"max_position_embeddings": 99}}, 99),
        ({"model_type": "vlm", "n_positions": 7, "text_config": {"model_type": "gpt2", "n_positions": 99}}, 99),
    ],
)
def test_a_window_is_found_under_any_of_its_names(config: dict[str, Any], window: int | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert window_of(tmp_path) == window


@pytest.mark.parametrize("kind", TABLES)
def test_where_a_configuration_is_silent_it_is_what_transformers_takes(kind: str, tmp_path: Path) -> None:
    config = transformers.CONFIG_MAPPING[kind]()
    assert TABLES[kind] == (config.max_seq_len if kind == "mpt" else config.max_position_embeddings)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("GPT2", GPT),
        ("GPTNeo", TABLED["GPTNeo"]),
        ("Mpt", TABLED["Mpt"]),
        ("Bloom", ENDLESS["Bloom"]),
        ("Llama", SIZES),
    ],
)
def test_counts_are_those_that_transformers_reads(name: str, fields: dict[str, Any], tmp_path: Path) -> None:
    config = made(name, fields, tmp_path).config
    found = read_config(tmp_path)
    for field in ("num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size"):
        assert found[field] == getattr(config, field)


@pytest.mark.parametrize("name", TOKENIZER_FILES)
def test_what_a_prompts_tokens_depend_on_is_laid_down_and_tells_models_apart(name: str, tmp_path: Path) -> None:
    """Of vocab.json and merges.txt nothing was known where prompts were shared: two models without a tokenizer.json had
    the first one's.
    """
    assert any(PurePath(name).match(pattern) for pattern in FILES)
    (tmp_path / "config.json").write_text(json.dumps(SIZES))
    without = tokenizer_digest(tmp_path)
    (tmp_path / name).write_text("{}")
    first = tokenizer_digest(tmp_path)
    (tmp_path / name).write_text("{ }")
    assert len({without, first, tokenizer_digest(tmp_path)}) == 3


def test_models_of_one_tokenizer_are_alike_as_far_as_they_know_as_many_tokens(tmp_path: Path) -> None:
    found = set()
    for changes in ({}, {"hidden_size": 16}, {"vocab_size": 61}, {"max_position_embeddings": 32}):
        (tmp_path / "config.json").write_text(json.dumps(SIZES | changes))
        found.add(tokenizer_digest(tmp_path))
    assert len(found) == 3
