"""A LoRA-tuned model is kept as a plain one that answers alike, and only its adapters moved."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from kdray.artifacts.rows import Rows
from kdray.models.adapters import (
    Frozen,
    base_of,
    load_exported,
    load_quantised,
    load_teacher,
    merged,
    narrow,
    save_adapters,
    with_lora,
)
from kdray.models.head import ResponseModel, split
from kdray.models.load import load_folder, save, weight_bytes
from kdray.spec.errors import InputError
from kdray.store import Key, Store
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
from tests.store.test_done import changed
from tests.tiny import write_model, write_rows
from tests.train.test_loop import SETTINGS


@pytest.mark.slow
@pytest.mark.parametrize(("quantised", "scale"), [(False, 2.0), (False, 4.0), (True, 2.0)])
def test_a_tuned_model_is_kept_as_a_plain_one_that_answers_alike(tmp_path, quantised, scale):
    folder = write_model(tmp_path / "model", hidden=64)
    if quantised:
        pytest.importorskip("bitsandbytes")
    plain, tokenizer = load_folder(folder)
    before = {name: value.clone() for name, value in plain.state_dict().items()}
    base = load_quantised(folder, "cpu", torch.float32) if quantised else plain
    adapted = with_lora(base, rank=4, scale=scale, dropout=0.1)
    rows = Rows(write_rows(tmp_path / "rows", tokenizer))
    settings = replace(SETTINGS, alpha=0.0, lr=1e-2)
    loop = Loop(ResponseModel(adapted), rows, settings, signal=None, vocab_size=len(tokenizer), ranks=Ranks())
    losses = [metrics["loss"] for metrics in loop.steps()]
    assert losses[-1] < losses[0]
    kept = merged(folder, 4, loop.engine.weights(), scale)
    assert set(kept.state_dict()) == set(before), "the kept model is not a plain one"
    assert torch.equal(kept.state_dict()["model.norm.weight"], before["model.norm.weight"])
    up_proj, weights = "model.layers.0.mlp.up_proj", loop.engine.weights()
    b, a = (weights[f"base_model.model.{up_proj}.lora_{side}.default.weight"] for side in "BA")
    moved = (
        kept.state_dict()[f"{up_proj}.weight"] - before[f"{up_proj}.weight"]
    )  # of the weights before they were quantised
    assert moved.abs().max() > 1e-4
    assert torch.allclose(moved, scale * b @ a, atol=1e-6)
    if not quantised:
        ids = torch.tensor([rows.input_ids(0)])
        with torch.no_grad():
            assert torch.allclose(kept(ids).logits, adapted.eval()(ids).logits, atol=1e-4)


def test_quantised_gradients_are_those_of_the_dequantised_model(tmp_path):
    functional = pytest.importorskip("bitsandbytes.functional")
    folder = write_model(tmp_path / "model", hidden=64)
    ids = torch.arange(2, 40)[None]
    quantised, gradients = load_quantised(folder, "cpu", torch.float32), []
    dequantised, _ = load_folder(folder)
    for name, module in quantised.named_modules():
        if type(module).__name__ == "Linear4bit":
            weight = functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            dequantised.get_submodule(name).weight.data.copy_(weight)
    for model in (quantised, dequantised):
        torch.manual_seed(0)
        adapted = with_lora(model, rank=4)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        adapted.eval()(input_ids=ids)  # an evaluation before the backward pass, as at a checkpoint
        adapted.train()(input_ids=ids, labels=ids).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for n, p in adapted.named_parameters() if "lora_" in n]))
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()


@pytest.mark.slow
def test_adapters_begin_alike_for_one_seed_whatever_was_drawn_before(tmp_path):
    folder, made = write_model(tmp_path / "model"), []
    for seed in (3, 3, 4):
        torch.rand(len(made) + 1)
        adapted = with_lora(load_folder(folder)[0], 4, seed)
        made.append(torch.cat([p.flatten() for n, p in adapted.named_parameters() if "lora_A" in n]))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_merging_leaves_the_random_numbers_of_a_running_loop_alone(tmp_path):
    folder = write_model(tmp_path / "model")
    weights = with_lora(load_folder(folder)[0], 4).state_dict()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    merged(folder, 4, weights)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A model in a store, its tokenizer, and adapters that have moved."""
    folder = write_model(tmp_path_factory.mktemp("store") / "model" / "tiny-0123456789ab" / "attempt-001")
    plain, tokenizer = load_folder(folder)
    adapted = with_lora(plain, 4, scale=3.0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return folder, tokenizer, adapted


def exported(tuned, folder, dtype=torch.float32):
    base, tokenizer, adapted = tuned
    save_adapters(adapted, tokenizer, folder, adapted.state_dict(), base, dtype)
    return folder


def test_adapters_are_merged_in_the_type_that_is_kept_with_sums_in_float32(tmp_path, tuned):
    base, tokenizer, adapted = tuned
    published = tmp_path / "published"  # in bfloat16, as most are
    save(load_folder(base)[0], tokenizer, published, dtype=torch.bfloat16)
    exact, narrow = (
        merged(published, 4, adapted.state_dict(), 3.0, dtype).state_dict() for dtype in (torch.float32, torch.bfloat16)
    )
    assert {tensor.dtype for tensor in narrow.values()} == {torch.bfloat16}
    assert all(torch.equal(narrow[name], exact[name].bfloat16()) for name in exact)
    assert not torch.equal(
        narrow["model.layers.0.mlp.up_proj.weight"],
        load_folder(published)[0].state_dict()["model.layers.0.mlp.up_proj.weight"].bfloat16(),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_alone_are_scored_as_the_plain_model_they_make(tmp_path, tuned, dtype):
    base, tokenizer, adapted = tuned
    save(merged(base, 4, adapted.state_dict(), 3.0), tokenizer, tmp_path / "plain")
    (plain, _), (alone, _) = (
        load_exported(tmp_path / "plain", dtype),
        load_exported(exported(tuned, tmp_path / "a"), dtype),
    )
    expected, found = plain.state_dict(), alone.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)  # bit for bit, on one processor
    assert not torch.equal(
        found["model.layers.0.mlp.up_proj.weight"],
        load_folder(base, dtype)[0].state_dict()["model.layers.0.mlp.up_proj.weight"],
    )


def test_peft_reads_an_export_of_adapters_and_finds_the_model_they_belong_to(tmp_path, tuned):
    from peft import AutoPeftModelForCausalLM

    base, _, adapted = tuned
    folder, ids = exported(tuned, tmp_path / "a"), torch.arange(2, 20)[None]
    assert not [*folder.glob("model*.safetensors")], "the base is named, not copied"
    assert folder.joinpath("adapter_model.safetensors").stat().st_size < weight_bytes(base) / 2
    with torch.no_grad():
        found = AutoPeftModelForCausalLM.from_pretrained(folder).eval()(ids).logits
        assert torch.allclose(found, adapted.eval()(ids).logits, atol=1e-5)


def test_rounded_adapters_are_rounded_before_they_are_merged(tmp_path, tuned):
    kept = load_file(exported(tuned, tmp_path / "a", torch.bfloat16) / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.bfloat16}
    up_proj, (base, _, _) = "model.layers.0.mlp.up_proj", tuned
    b, a = (kept[f"base_model.model.{up_proj}.lora_{side}.weight"].float() for side in "BA")
    found = load_exported(tmp_path / "a", torch.float32)[0].state_dict()[f"{up_proj}.weight"]
    assert torch.allclose(found - load_folder(base)[0].state_dict()[f"{up_proj}.weight"], 3.0 * b @ a, atol=1e-6)


def test_reading_adapters_leaves_the_random_numbers_alone(tmp_path, tuned):
    folder = exported(tuned, tmp_path / "a")
    torch.manual_seed(7)
    before = torch.get_rng_state()
    load_exported(folder, torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_model_of_adapters_is_found_where_their_store_went_and_otherwise_asked_for(tmp_path, tuned):
    base, _, _ = tuned
    root = tmp_path / "moved"
    folder = exported(tuned, root / "student" / "point-ba9876543210" / "attempt-001")
    config = json.loads((folder / "adapter_config.json").read_text())
    away = "/away/store/" + "/".join(base.parts[-3:])
    (folder / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": away}))
    with pytest.raises(InputError, match=f"belong to {away}, which is not there"):
        base_of(folder)
    shutil.copytree(base.parents[1], root / "model")
    assert base_of(folder) == root / "model" / base.parent.name / base.name
    assert base_of(base) == base, "a plain model is its own"


@pytest.mark.parametrize(
    ("change", "said"), [("less", "lacks base_model.model.*lora_A"), ("more", "has too much: .*odd")]
)
def test_adapters_that_are_not_the_models_are_refused_by_name(tmp_path, tuned, change, said):
    path = exported(tuned, tmp_path / "a") / "adapter_model.safetensors"
    kept = load_file(path)
    name = next(name for name in kept if "lora_A" in name)
    if change == "less":
        del kept[name]
    else:
        kept[name.replace("layers.0", "layers.odd")] = kept[name].clone()
    save_file(kept, path)
    with pytest.raises(InputError, match=said):
        load_exported(tmp_path / "a", torch.float32)


@pytest.mark.parametrize("place", [0, 5000])
def test_adapters_that_are_not_what_was_sealed_are_refused(tmp_path, tuned, place):
    attempt = Store(tmp_path).begin(Key("student", "a", "0" * 12), {})
    exported(tuned, attempt.path)
    made = attempt.seal()
    load_exported(made.path, torch.float32)
    changed(made.path / "adapter_model.safetensors", place)
    with pytest.raises(InputError, match=r"adapter_model.safetensors: damaged \(not what was sealed\)"):
        load_exported(made.path, torch.float32)


def test_adapters_on_the_output_head_are_refused(tmp_path):
    from peft import LoraConfig, get_peft_model

    model, _ = load_folder(write_model(tmp_path / "model"))
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"]))
    with pytest.raises(InputError, match="without adapters"):
        split(adapted)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.slow
def test_a_frozen_base_in_bfloat16_trains_adapters_bit_for_bit_as_one_in_float32(tmp_path, checkpointing):
    """Six bytes of a frozen weight (itself, and what autocast makes of it) are two."""
    folder, runs = write_model(tmp_path / "model"), []
    for narrowed in (False, True):
        plain, tokenizer = load_folder(folder)
        model = with_lora(plain, rank=4, seed=1, dropout=0.1)
        if narrowed:
            narrow(model, torch.bfloat16)
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        rows = Rows(write_rows(tmp_path / f"rows{narrowed}", tokenizer))
        settings = replace(SETTINGS, alpha=0.0, lr=1e-2, dtype="bfloat16", packing=True)
        loop = Loop(ResponseModel(model), rows, settings, signal=None, vocab_size=len(tokenizer), ranks=Ranks())
        losses = [metrics["loss"] for metrics in loop.steps()]
        runs.append((losses, loop.heldout(2), loop.engine.weights(), model))
    (losses, heldout, weights, _), (narrow_losses, narrow_heldout, narrow_weights, model) = runs
    assert narrow_losses == losses
    assert losses[-1] < losses[0]
    assert narrow_heldout == heldout
    adapters = {name for name in weights if "lora_" in name}
    assert adapters
    assert all(torch.equal(weights[name], narrow_weights[name]) for name in adapters)
    kinds = {name: weight.dtype for name, weight in model.named_parameters()}
    assert {kind for name, kind in kinds.items() if "lora_" in name} == {torch.float32}
    assert {kind for name, kind in kinds.items() if "base_layer" in name} == {torch.bfloat16}
    assert {kind for name, kind in kinds.items() if "embed" in name or "norm" in name} == {torch.float32}
    assert sum(isinstance(module, Frozen) for module in model.modules()) == 7 * len(model.get_decoder().layers)


@pytest.mark.parametrize(("bits", "near"), [("4bit", 0.4), ("8bit", 0.05)])
def test_a_quantised_teacher_says_nearly_what_the_whole_one_says(tmp_path, bits, near):
    pytest.importorskip("bitsandbytes")
    folder, ids = write_model(tmp_path / "model", layers=1, hidden=64), torch.arange(2, 40)[None]
    whole, teacher = (load_teacher(folder, torch.float32, kept, "f")[0] for kept in (None, bits))
    with torch.no_grad():
        exact, rounded = (ResponseModel(model).whole(ids).logits for model in (whole, teacher))
    assert 0 < (rounded - exact).norm() < near * exact.norm()
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_without_bitsandbytes_the_field_that_asked_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.nn.modules", None)
    folder = write_model(tmp_path / "model")
    with pytest.raises(InputError, match=r"^soft_labels.quantise: 8bit weights without bitsandbytes; pip install"):
        load_teacher(folder, torch.float32, "8bit", "soft_labels.quantise")
    assert load_teacher(folder, torch.float32, None, "soft_labels.quantise")[0].dtype == torch.float32
