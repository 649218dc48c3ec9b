"""Every weight of a model is its checkpoint's, and one that is not is named; no adapter comes along unseen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from kdray.models import load, load_folder
from kdray.models.adapters import load_quantised
from kdray.models.load import lay_down, load_placed, weight_bytes
from kdray.models.weights import load_whole
from kdray.spec.errors import InputError
from kdray.spec.refs import parse_reference
from kdray.spec.weights import WEIGHTS
from kdray.store import Outer
from tests.tiny import write_model, write_tokenizer

Weights = dict[str, Tensor]
Change = Callable[[Weights], Weights]


def change(folder: Path, how: Change | None = None, **config: Any) -> Path:
    """`folder` with its weights, or its configuration, changed."""
    if how:
        tensors = {name: tensor.clone().contiguous() for name, tensor in how(load_file(folder / WEIGHTS)).items()}
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    kept = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(kept | config))
    return folder


def renamed(old: str, new: str) -> Change:
    return lambda weights: {name.replace(old, new, 1): tensor for name, tensor in weights.items()}


def prefixed(prefix: str) -> Change:
    return lambda weights: {prefix + name: tensor for name, tensor in weights.items()}


def as_type(dtype: torch.dtype) -> Change:
    return lambda weights: {name: tensor.to(dtype) for name, tensor in weights.items()}


def without(part: str) -> Change:
    return lambda weights: {name: tensor for name, tensor in weights.items() if part not in name}


def lay(folder: Path, target: Path) -> None:
    target.mkdir()
    lay_down(parse_reference(f"file:{folder}"), Outer(target.parent / "store"), target, "student.model", language=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Of three layers, with a head that is its embedding."""
    return write_model(tmp_path / "m")


@pytest.fixture
def untied(model: Path) -> Path:
    """With a head of its own."""
    torch.manual_seed(1)
    head = torch.randn(load_file(model / WEIGHTS)["model.embed_tokens.weight"].shape)
    return change(model, lambda weights: weights | {"lm_head.weight": head}, tie_word_embeddings=False)


BROKEN: dict[str, tuple[Change | None, dict[str, Any], str]] = {
    "compiled": (
        prefixed("_orig_mod."),
        {},
        r"a weight called _orig_mod\.\S+ in REF; it was saved wrapped \(torch\.compile\)",
    ),
    "DDP": (
        prefixed("module."),
        {},
        r"a weight called module\.\S+ in REF; it was saved wrapped \(DataParallel, DDP or DeepSpeed\)",
    ),
    "peft": (
        prefixed("base_model.model."),
        {},
        r"a weight called base_model\.\S+ in REF; it was saved wrapped \(peft\)",
    ),
    "Lightning": (prefixed("_forward_module."), {}, r"a weight called _forward_module\.\S+ in REF"),
    "FSDP inside": (
        renamed("layers.1.", "layers.1._fsdp_wrapped_module."),
        {},
        r"a weight called model\.layers\.1\._fsdp\S+ in REF",
    ),
    "another wrapper": (prefixed("student."), {}, r"REF lacks the weight \S+ \(and \d+ more\), and has student\.\S+"),
    "adapters within": (
        renamed("q_proj.", "q_proj.base_layer."),
        {},
        r"an adapter's weight model\.\S+base_layer.weight in REF; merge it",
    ),
    "no norm": (without("model.norm"), {}, r"REF lacks the weight model\.norm\.weight; give the whole checkpoint"),
    "a layer too many": (
        None,
        {"num_hidden_layers": 2},
        r"weights of a layer 2 in REF; its config\.json says 2 layers",
    ),
    "a layer too few": (
        None,
        {"num_hidden_layers": 4},
        r"no weights of layer 3 in REF; its config\.json says 4 layers",
    ),
    "a bias": (
        None,
        {"attention_bias": True},
        r"REF lacks the weight model\.layers\.0\.self_attn\.k_proj\.bias \(and 11 more\)",
    ),
    "something more": (
        lambda weights: weights | {"model.extra": torch.ones(2)},
        {},
        r"REF has a weight model\.extra that the",
    ),
    "a narrow layer": (
        None,
        {"intermediate_size": 32},
        r"REF has \S+down_proj\.weight of shape \[32, 64\] .*; the model's is \[32, 32\]",
    ),
    "another vocabulary": (
        None,
        {"vocab_size": 300},
        r"model\.embed_tokens\.weight of shape \[\d+, 32\] in REF; .* a vocabulary of 300",
    ),
    "whole numbers": (as_type(torch.int8), {}, r"quantised weights \(\S+: I8\) in REF"),
    "eight bits": (as_type(torch.float8_e4m3fn), {}, r"quantised weights \(\S+: F8_E4M3\) in REF"),
    "code of its own": (
        None,
        {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}},
        r"REF cannot be read \(.+\)",
    ),
}


@pytest.mark.parametrize(("how", "config", "said"), BROKEN.values(), ids=[name.replace(" ", "-") for name in BROKEN])
def test_weights_that_do_not_fit_are_named_when_laid_down_and_when_loaded(how, config, said, model, tmp_path, logged):
    change(model, how, **config)
    pattern = said.replace("REF", f"file:{model}")
    with pytest.raises(InputError, match=f"^student.model: {pattern}") as caught:
        lay(model, tmp_path / "out")
    assert "\n" not in str(caught.value)
    for read in (load_folder, load_placed, lambda folder: load_folder(folder, device="meta")):
        with pytest.raises(InputError, match=f"^model: {said.replace('REF', str(model))}"):
            read(model)
    assert not [message for message in logged if "LOAD REPORT" in message]  # said once, not twice


def test_what_only_the_models_own_code_knows_is_found_on_the_meta_device(untied, tmp_path):
    """That Llama's head is a matrix of its own where its configuration is silent, no header tells."""
    change(untied, without("lm_head"))
    kept = json.loads((untied / "config.json").read_text())
    for said in ({}, {"tie_word_embeddings": False}):
        (untied / "config.json").write_text(
            json.dumps({k: v for k, v in kept.items() if k != "tie_word_embeddings"} | said)
        )
        message = r"no output head \(lm_head\.weight\)" if said else r"\S+ lacks the weight lm_head\.weight; "
        with pytest.raises(InputError, match=rf"^student\.model: {message}"):
            lay(untied, tmp_path / f"out{len(said)}")


@pytest.mark.parametrize(
    "how", [lambda weights: weights, prefixed("model."), renamed("model.", "")], ids=["plain", "doubled", "absent"]
)
def test_names_that_lead_to_every_weight_are_read(how, untied, tmp_path):
    ids = torch.arange(3, 12)[None]
    logits = load_folder(untied)[0](ids).logits
    lay(change(untied, how), tmp_path / "out")
    assert torch.equal(load_folder(tmp_path / "out")[0](ids).logits, logits)


def test_a_checkpoint_of_experts_is_whole_or_refused(tmp_path):
    """They are merged while they are read: names and shapes in the file are not those of the model."""
    tokenizer = write_tokenizer(tmp_path / "m")
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    MixtralForCausalLM(MixtralConfig(vocab_size=len(tokenizer), num_local_experts=3, **sizes)).save_pretrained(
        tmp_path / "m"
    )
    lay(tmp_path / "m", tmp_path / "out")
    for i, how in enumerate(
        (without("experts.1.w1"), lambda weights: weights | renamed("experts.1", "experts.3")(weights))
    ):
        with pytest.raises(InputError, match=r"^student\.model: file:"):
            lay(change(tmp_path / "m", how), tmp_path / f"out{i}")


def test_old_buffers_that_a_model_computes_itself_are_no_weights(model, tmp_path):
    lay(
        change(model, lambda weights: weights | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
        tmp_path / "out",
    )


def write_adapter(folder: Path, target: Path) -> None:
    adapted = get_peft_model(load_folder(folder)[0], LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapted.save_pretrained(target)


def test_an_adapter_is_refused_beside_weights_and_alone(model, tmp_path):
    write_adapter(model, tmp_path / "alone")
    with pytest.raises(
        InputError, match=r"^model: an adapter \(adapter_config\.json\) in file:\S+alone; merge it into the model first"
    ):
        load(f"file:{tmp_path / 'alone'}")
    write_adapter(model, model)
    for read in (load_folder, load_placed):
        with pytest.raises(InputError, match=r"^model: an adapter \(adapter_config\.json\) in "):
            read(model)
    with pytest.raises(InputError, match=r"^student\.model: an adapter \(adapter_config\.json\) in file:\S+; merge it"):
        lay(model, tmp_path / "out")
    assert not [*(tmp_path / "out").iterdir()]


def test_the_base_of_another_models_code_is_laid_down_without_weights_and_without_an_adapter(model, tmp_path):
    ref, outer, target = parse_reference(f"file:{model}"), Outer(tmp_path / "store"), tmp_path / "out"
    target.mkdir()
    lay_down(ref, outer, target, "score.metrics.hhem.base", weights=False)
    assert {"config.json", "tokenizer.json"} <= {path.name for path in target.iterdir()}
    assert not [*target.glob("*.safetensors")]


def test_only_the_weights_that_are_read_are_laid_down_and_counted(model, tmp_path):
    count = weight_bytes(model)
    save_file({"layers.0.attention.wq.weight": torch.ones(4, 4)}, model / "consolidated.safetensors")
    assert weight_bytes(model) == count
    lay(model, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob("*.safetensors")] == [WEIGHTS]


def test_shards_are_laid_down_with_their_index(model, tmp_path):
    sharded = tmp_path / "sharded"
    loaded, tokenizer = load_folder(model)
    loaded.save_pretrained(sharded, max_shard_size="50KB")
    tokenizer.save_pretrained(sharded)
    lay(sharded, tmp_path / "out")
    assert len([*(tmp_path / "out").glob("model-*.safetensors")]) > 1
    assert weight_bytes(tmp_path / "out") == weight_bytes(model)
    again = load_folder(tmp_path / "out")[0].state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in loaded.state_dict().items())


def test_a_hub_model_is_read_as_a_folder_is(model, monkeypatch):
    """So its adapter is seen, and neither another form of the weights nor what lies in folders is fetched."""
    asked = []

    def fetched(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    assert torch.equal(load("hf:org/name@main")[0].lm_head.weight, load_folder(model)[0].lm_head.weight)
    [(name, options)] = asked
    assert (name, options["revision"]) == ("org/name", "main")
    assert {"*/*", "consolidated*"} <= {*options["ignore_patterns"]}
    write_adapter(model, model)
    with pytest.raises(InputError, match=r"^model: an adapter \(adapter_config\.json\) in hf:org/name@main"):
        load("hf:org/name@main")


def test_an_encoder_is_whole_below_its_head(tmp_path):
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 20,
    }
    BertForMaskedLM(BertConfig(**sizes)).save_pretrained(tmp_path)
    load_whole(
        AutoModel, tmp_path, body=True
    )  # without the head that it was trained with, and with a pooler that is not used
    with pytest.raises(InputError, match=r"^model: \S+ lacks the weight pooler\.dense"):
        load_whole(AutoModel, tmp_path)
    change(tmp_path, without("layer.1.output.dense.bias"))
    with pytest.raises(InputError, match=r"^model: \S+ lacks the weight encoder\.layer\.1\.output\.dense\.bias"):
        load_whole(AutoModel, tmp_path, body=True)
    BertForMaskedLM(BertConfig(**sizes)).save_pretrained(tmp_path)
    change(tmp_path, lambda weights: weights | {"bert.encoder.extra": torch.ones(1)})
    with pytest.raises(InputError, match=r"^model: \S+ has a weight bert\.encoder\.extra"):
        load_whole(AutoModel, tmp_path, body=True)


def test_a_quantised_load_is_held_to_every_weight_too(model):
    pytest.importorskip("bitsandbytes")
    load_quantised(model, "cpu", torch.float32)
    change(model, without("model.norm"))
    with pytest.raises(InputError, match=r"lacks the weight model\.norm\.weight"):
        load_quantised(model, "cpu", torch.float32)


def test_a_gguf_file_that_lacks_a_weight_is_refused(model, tmp_path, monkeypatch):
    """What transformers says of it, since nothing here writes GGUF."""

    def incomplete(*_: object, **__: object) -> tuple[LlamaForCausalLM, dict[str, Any]]:
        found = {
            "missing_keys": {"model.norm.weight"},
            "unexpected_keys": set(),
            "mismatched_keys": set(),
            "error_msgs": [],
        }
        return whole, found

    whole = load_folder(model)[0]
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", incomplete)
    with pytest.raises(InputError, match=r"^model: \S+m\.gguf lacks the weight model\.norm\.weight"):
        load(f"file:{tmp_path}/m.gguf")
