"""What headers, names of files and configurations tell of weights, without loading a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdray.spec.errors import InputError
from kdray.spec.weights import (
    INDEX,
    WEIGHTS,
    check_config_is_plain,
    check_names,
    check_weights,
    read_headers,
    weight_files,
)

Shapes = dict[str, tuple[str, list[int]]]
BYTES = {"F32": 4, "BF16": 2, "U8": 1, "I32": 4, "BOOL": 1, "F8_E4M3": 1}
LLAMA = {"model_type": "llama", "num_hidden_layers": 2, "vocab_size": 5}


def safetensors(tensors: Shapes) -> bytes:
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = BYTES[dtype]
        for extent in shape:
            size *= extent
        header[name], end = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}, end + size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


def plain(layers: int = 2, head: bool = True) -> Shapes:
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(layers)]
    matrices = ["model.embed_tokens.weight"] + ["lm_head.weight"] * head
    return {name: ("F32", [3, 2]) for name in names} | {name: ("BF16", [5, 2]) for name in matrices}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, plain())
    return tmp_path


def write(folder: Path, tensors: Shapes, config: dict[str, Any] | None = None) -> None:
    (folder / WEIGHTS).write_bytes(safetensors(tensors))
    (folder / "config.json").write_text(json.dumps(LLAMA | (config or {})))


def shard(folder: Path, *shards: Shapes, index: dict[str, str] | None = None) -> None:
    (folder / WEIGHTS).unlink()
    names = [f"model-{i}-of-{len(shards)}.safetensors" for i in range(len(shards))]
    for name, tensors in zip(names, shards, strict=True):
        (folder / name).write_bytes(safetensors(tensors))
    found = {tensor: name for name, tensors in zip(names, shards, strict=True) for tensor in tensors}
    (folder / INDEX).write_text(json.dumps({"weight_map": found if index is None else index}))


@pytest.mark.parametrize(
    ("tensors", "config"),
    [
        (plain(), {}),
        (plain(), {"tie_word_embeddings": False}),
        (plain(head=False), {}),  # a configuration that is silent means what its class says
        (plain(head=False), {"tie_word_embeddings": True}),
        (plain(3), {"num_nextn_predict_layers": 1}),  # DeepSeek's: they predict the tokens after the next
        # two stacks: which is which, headers do not tell
        (plain() | {"vision.layers.0.weight": ("F32", [1])}, {"num_hidden_layers": 9}),
        # masks and positions
        (plain() | {"h.0.attn.bias": ("BOOL", [1]), "ids": ("I32", [2])}, {"num_hidden_layers": 2}),
        ({"a": ("U8", [1])}, {}),
    ],
)
def test_what_may_be_whole_is_not_refused(tensors: Shapes, config: dict[str, Any], folder: Path) -> None:
    write(folder, tensors, config)
    check_weights(folder, "student.model")


@pytest.mark.parametrize(
    ("tensors", "config", "said"),
    [
        (plain(1), {}, "no weights of layer 1 in HERE; its config.json says 2 layers"),
        (plain(2), {"num_hidden_layers": 4}, "no weights of layer 2 in HERE (and 1 more); "),
        (plain(3), {}, "weights of a layer 2 in HERE; its config.json says 2 layers"),
        (
            {"transformer.h.0.ln_1.weight": ("F32", [1])},
            {"num_hidden_layers": ..., "n_layer": 2},
            "no weights of layer 1 in HERE",
        ),
        (
            plain(head=False),
            {"tie_word_embeddings": False},
            "no output head (lm_head.weight) in HERE; its config.json says tie_word",
        ),
        (
            plain(),
            {"vocab_size": 6},
            "model.embed_tokens.weight of shape [5, 2] in HERE; its config.json says a vocabulary of 6",
        ),
        (
            {f"_orig_mod.{name}": tensor for name, tensor in plain().items()},
            {},
            "a weight called _orig_mod.model.layers.0.mlp.up_proj",
        ),
        (
            plain() | {"model.layers.0.q_proj.lora_A.default.weight": ("F32", [1])},
            {},
            "an adapter's weight model.layers.0.q_proj.lora_A",
        ),
        (
            plain() | {"model.layers.0.q_proj.qweight": ("I32", [1])},
            {},
            "quantised weights (model.layers.0.q_proj.qweight: I32)",
        ),
        (
            plain() | {"model.layers.0.q_proj.weight": ("U8", [1])},
            {},
            "quantised weights (model.layers.0.q_proj.weight: U8)",
        ),
        (
            plain() | {"x": ("F8_E4M3", [1])},
            {},
            "quantised weights (x: F8_E4M3) in HERE; give the model's plain weights, or a GGUF file",
        ),
        (
            plain(),
            {"quantization_config": {"quant_method": "gptq"}},
            "weights quantised by gptq in HERE; give the model's plain weights",
        ),
        (plain(), {"quantization_config": {"load_in_4bit": True}}, "weights quantised by some method in HERE"),
        (
            plain(),
            {"transformers_weights": "other.safetensors"},
            "weights in other.safetensors by the config.json in HERE",
        ),
        (plain(), {"architectures": ["BertForMaskedLM"]}, "a BertForMaskedLM in HERE; give a causal language model"),
        (plain(), {"architectures": ["ViTForImageClassification"]}, "a ViTForImageClassification in HERE"),
    ],
)
@pytest.mark.parametrize("shown", ["", "hf:org/name@main"])
def test_what_cannot_be_whole_is_named(
    tensors: Shapes, config: dict[str, Any], said: str, shown: str, folder: Path
) -> None:
    write(folder, tensors, {key: value for key, value in config.items() if value is not ...})
    if ... in config.values():
        kept = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(
            json.dumps({key: value for key, value in kept.items() if config.get(key) is not ...})
        )
    with pytest.raises(InputError) as caught:
        check_weights(folder, "student.model", shown)
    assert str(caught.value).startswith(f"student.model: {said.replace('HERE', shown or str(folder))}")


def test_an_encoder_is_not_held_to_what_a_causal_model_has(folder: Path) -> None:
    write(
        folder,
        plain(head=False),
        {"tie_word_embeddings": False, "architectures": ["BertForMaskedLM"], "is_encoder_decoder": True},
    )
    check_weights(folder, "score.metrics.bertscore.model", language=False)
    write(folder, plain(1))
    with pytest.raises(InputError, match="no weights of layer 1"):
        check_weights(folder, "score.metrics.bertscore.model", language=False)


FIRST, SECOND = {"a": ("F32", [1])}, {"b": ("F32", [2])}


def test_shards_are_read_by_their_index(folder: Path) -> None:
    shard(folder, FIRST, SECOND)
    (folder / "consolidated.safetensors").write_bytes(safetensors(FIRST | SECOND))
    assert [path.name for path in weight_files(folder, "m")] == ["model-0-of-2.safetensors", "model-1-of-2.safetensors"]
    assert {name: tensor.shape for name, tensor in read_headers(folder, "m").items()} == {"a": (1,), "b": (2,)}


@pytest.mark.parametrize(
    ("shards", "index", "said"),
    [
        (
            [FIRST],
            {"a": "model-0-of-1.safetensors", "c": "model-0-of-1.safetensors"},
            "no c in the shards of HERE; model.safetensors",
        ),
        (
            [FIRST | SECOND],
            {"a": "model-0-of-1.safetensors"},
            "b in the shards of HERE; model.safetensors.index.json does not name it",
        ),
        ([FIRST, FIRST], {"a": "model-0-of-2.safetensors", "b": "model-1-of-2.safetensors"}, "a in two shards of HERE"),
        ([FIRST], {"a": "other.safetensors"}, "no other.safetensors in HERE; model.safetensors.index.json names it"),
        ([FIRST], {"a": "../m.safetensors"}, "no ../m.safetensors in HERE"),
        ([FIRST], {}, "HERE: model.safetensors.index.json is damaged (no weight_map)"),
    ],
)
def test_an_index_and_shards_that_disagree_are_refused(
    shards: list[Shapes], index: dict[str, str], said: str, folder: Path
) -> None:
    shard(folder, *shards, index=index)
    with pytest.raises(InputError) as caught:
        read_headers(folder, "m")
    assert str(caught.value).startswith(f"m: {said.replace('HERE', str(folder))}")


def test_two_sets_of_weights_are_refused_and_one_file_under_an_index_is_not(folder: Path) -> None:
    shard(folder, FIRST)
    (folder / WEIGHTS).write_bytes(safetensors(SECOND))
    with pytest.raises(InputError, match="m: two sets of weights in "):
        weight_files(folder, "m")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"b": WEIGHTS}}))
    assert list(read_headers(folder, "m")) == ["b"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["adapter_config.json", "adapter_model.safetensors"],
            "an adapter (adapter_config.json) in REF; merge it into the model first",
        ),
        (["config.json", WEIGHTS, "adapter_config.json"], "an adapter (adapter_config.json) in REF"),
        (["config.json", WEIGHTS, "adapter_model.safetensors"], "an adapter (adapter_model.safetensors) in REF"),
        ([WEIGHTS], "no config.json in REF"),
        (
            ["config.json", "consolidated.safetensors"],
            "no weights in REF (consolidated.safetensors is not read); it needs *.safetensors",
        ),
        (
            ["config.json", "model-00001-of-00002.safetensors"],
            f"no {INDEX} in REF; it says what is in model-00001-of-00002",
        ),
        (["config.json", "model.onnx"], "no weights in REF (model.onnx is not read)"),
        (
            ["config.json", "pytorch_model.bin"],
            "no weights in REF; it needs *.safetensors (model.safetensors, or shards",
        ),
        (
            ["config.json", "m.Q4_0.gguf"],
            "no weights in REF (m.Q4_0.gguf is not read); it needs *.safetensors, or name the file itself",
        ),
    ],
)
def test_names_of_files_tell_what_is_no_model(names: list[str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        check_names(names, "teacher.model", "REF")
    assert str(caught.value).startswith(f"teacher.model: {said}")


@pytest.mark.parametrize("more", [[], ["consolidated.safetensors", "pytorch_model.bin"]])
def test_names_of_a_model_pass(more: list[str]) -> None:
    check_names(["config.json", WEIGHTS, *more], "m", "REF")
    check_names(["config.json", INDEX, *more], "m", "REF")


def test_a_plain_configuration_passes() -> None:
    config = {"architectures": ["LlamaForCausalLM"], "quantization_config": None, "is_encoder_decoder": False}
    check_config_is_plain(config, "m", "REF", language=True)
