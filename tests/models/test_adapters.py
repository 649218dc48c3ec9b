"""A LoRA-tuned model is kept as a plain one that answers alike, and only its adapters moved."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

from kdray.artifacts.rows import Rows
from kdray.models.adapters import Frozen, load_quantised, load_teacher, merged, narrow, with_lora
from kdray.models.head import ResponseModel, split
from kdray.models.load import load_folder
from kdray.spec.errors import InputError
from kdray.train.engines import Ranks
from kdray.train.loop import Loop
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


def test_adapters_on_the_output_head_are_refused(tmp_path):
    from peft import LoraConfig, get_peft_model

    model, _ = load_folder(write_model(tmp_path / "model"))
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"]))
    with pytest.raises(InputError, match="without adapters"):
        split(adapted)


@pytest.mark.parametrize("checkpointing", [False, True])
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


@pytest.mark.parametrize(("bits", "near"), [("4bit", 0.35), ("8bit", 0.1)])
def test_a_quantised_teacher_says_nearly_what_the_whole_one_says(tmp_path, bits, near):
    pytest.importorskip("bitsandbytes")
    folder, ids = write_model(tmp_path / "model", hidden=64), torch.arange(2, 40)[None]
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
