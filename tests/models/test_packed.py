"""Packed rows: every sequence has the states and gradients that it has alone, in every family that is not refused."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from kdray.models import packed
from kdray.models.head import ResponseModel
from kdray.models.packed import NAME, OWN, Sequences, enable_packing, packed_mask
from kdray.spec.errors import InputError

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LENGTHS = [9, 1, 14, 6]
WINDOWS = ["sliding_attention", "full_attention"]
PACKED = {
    "Llama": {"num_key_value_heads": 2},
    "Qwen2": {"num_key_value_heads": 2},
    "Qwen2, a window in one layer": {
        "num_key_value_heads": 2,
        "use_sliding_window": True,
        "sliding_window": 4,
        "max_window_layers": 1,
    },
    "Mistral, a window shorter than a sequence": {"num_key_value_heads": 2, "sliding_window": 4},
    "Mistral, a window of one token": {"num_key_value_heads": 2, "sliding_window": 1},
    "Mistral, a wide window": {"num_key_value_heads": 2, "sliding_window": 99},
    "Gemma3Text": {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4, "layer_types": WINDOWS},
    "GPTNeoX": {},
    "GPT2, learned positions": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "Qwen3Moe": {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    },
}
REFUSED = {
    "Gemma2, softcap": ({"num_key_value_heads": 2, "head_dim": 8}, "eager attention|caps scores"),
    "GptOss, sinks": (
        {"num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
        "eager attention",
    ),
    "Bloom, ALiBi": ({"n_head": 4}, "eager attention"),
    "Falcon, ALiBi": ({"alibi": True}, "cannot be chosen"),
    "Lfm2, convolutions": ({"num_key_value_heads": 2, "full_attn_idxs": [1]}, "see each other"),
    "Mamba, recurrent": ({"state_size": 4}, "eager attention"),
    "OPT, positions from the mask": ({"ffn_dim": 64, "word_embed_proj_dim": 32}, "see each other"),
    "Doge, arithmetic on the mask": ({"num_key_value_heads": 2}, "AttributeError"),
}


def make(case: str, extra: dict) -> ResponseModel:
    torch.manual_seed(0)
    name = case.partition(",")[0]
    config = getattr(transformers, f"{name}Config")(**(SIZES | TOKENS | {"initializer_range": 0.3} | extra))
    return ResponseModel(AutoModelForCausalLM.from_config(config).eval())


def llama() -> ResponseModel:
    return make("Llama", PACKED["Llama"])


def sequences(lengths: list[int] = LENGTHS, seed: int = 0) -> list[torch.Tensor]:
    dice = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 50, (length,), generator=dice) for length in lengths]


def padded_states(model: ResponseModel, some: list[torch.Tensor]) -> torch.Tensor:
    ids = torch.nn.utils.rnn.pad_sequence(some, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in some], batch_first=True)
    return model.hidden(ids, mask, mask.nonzero())


def packed_states(model: ResponseModel, some: list[torch.Tensor]) -> torch.Tensor:
    ids = torch.cat(some)[None]
    position_ids = torch.cat([torch.arange(len(one)) for one in some])[None]
    return model.hidden(ids, torch.ones_like(ids), torch.ones_like(ids).nonzero(), position_ids)


def gradients(model: ResponseModel, states: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a fixed function of the states, with respect to everything that is trained."""
    model.zero_grad()
    weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(1))
    (states * weights).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    largest = max(gradient.norm() for gradient in theirs.values())
    for name, gradient in theirs.items():
        # Some are 0 but for rounding: a key's bias moves all scores of a query alike, and with one score a query moves
        # nothing.
        tolerance = 1e-5 * gradient.norm() if gradient.norm() > 1e-3 * largest else 1e-6 * largest
        assert (ours[name] - gradient).norm() < tolerance, name


@pytest.mark.parametrize("case", PACKED)
def test_packed_states_and_gradients_are_those_of_padded_rows(case):
    model, some = make(case, PACKED[case]), sequences()
    padded = padded_states(model, some)
    theirs = gradients(model, padded)
    ours = packed_states(model, some)
    assert model.backbone.config._attn_implementation == NAME
    torch.testing.assert_close(ours, padded, rtol=1e-5, atol=1e-5)
    assert_same_gradients(gradients(model, ours), theirs)


@pytest.mark.parametrize("case", PACKED)
@torch.no_grad()
def test_no_token_of_one_sequence_changes_another_bit_for_bit(case):
    model, some = make(case, PACKED[case]), sequences()
    # An expert multiplies the tokens of all sequences that chose it together, and how many those are decides how a CPU
    # rounds.
    same = torch.equal if "Moe" not in case else partial(torch.allclose, rtol=0, atol=1e-5)
    before = packed_states(model, some).split(LENGTHS)
    for changed in range(len(some)):
        others = list(some)
        others[changed] = (some[changed] + 11) % 47 + 3
        for i, (a, b) in enumerate(zip(before, packed_states(model, others).split(LENGTHS), strict=True)):
            assert same(a, b) == (i != changed)


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_cannot_be_packed_is_refused_and_left_as_it_was(case):
    extra, reason = REFUSED[case]
    model, some = make(case, extra), sequences()
    own, before = model.backbone.config._attn_implementation, padded_states(model, some)
    for _ in range(2):
        with pytest.raises(InputError, match="takes no packed rows") as refused:
            packed_states(model, some)
        assert re.search(reason, str(refused.value))
    assert model.backbone.config._attn_implementation == own
    assert torch.equal(padded_states(model, some), before)


def test_lora_adapters_get_the_same_gradients():
    torch.manual_seed(0)
    base = llama().whole
    wrapped = get_peft_model(
        base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    )
    model, some = ResponseModel(wrapped).train(), sequences()
    theirs = gradients(model, padded_states(model, some))
    assert theirs
    assert all("lora" in name for name in theirs)
    assert_same_gradients(gradients(model, packed_states(model, some)), theirs)
    assert model.training


def test_layers_that_are_computed_again_in_the_backward_pass_stay_apart():
    model, some = llama().train(), sequences()
    expected = gradients(model, packed_states(model, some))
    model.whole.gradient_checkpointing_enable()
    assert_same_gradients(gradients(model, packed_states(model, some)), expected)


def test_rows_that_are_not_packed_and_saved_models_do_not_notice(tmp_path):
    model, some = make("Mistral", PACKED["Mistral, a window shorter than a sequence"]), sequences()
    before = padded_states(model, some), padded_states(model, some[2:3])
    packed_states(model, some)
    assert torch.equal(padded_states(model, some), before[0])
    assert torch.equal(padded_states(model, some[2:3]), before[1])
    assert torch.equal(packed_states(model, some[2:3]), before[1])  # a row of one sequence
    model.whole.save_pretrained(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"


def test_under_bfloat16_autocast_packed_is_padded_up_to_rounding():
    model, some = llama(), sequences()
    with torch.autocast("cpu", torch.bfloat16):
        ours, padded = packed_states(model, some), padded_states(model, some)
    assert (ours - padded).norm() < 2e-2 * padded.norm()


def test_sequences_within_the_window_need_no_mask_of_their_own():
    position_ids = torch.tensor([[*range(3), *range(6), *range(4)]])
    embeddings = torch.zeros(1, 13, 8)
    config = transformers.MistralConfig(sliding_window=4)
    config._attn_implementation = NAME
    make_mask = transformers.masking_utils.create_sliding_window_causal_mask
    mask = make_mask(
        config=config, inputs_embeds=embeddings, attention_mask=None, past_key_values=None, position_ids=position_ids
    )
    assert isinstance(mask, Sequences)
    assert mask.lengths == [3, 6, 4]
    assert mask.ends.tolist() == [0, 3, 9, 13]
    at = torch.arange(6)
    expected = (at[None, :] <= at[:, None]) & (at[None, :] > at[:, None] - 4)
    assert mask.masks[0] is mask.masks[2] is None
    assert torch.equal(mask.masks[1], expected[None, None])


def test_one_call_over_all_sequences_takes_and_gives_the_same_layout(monkeypatch):
    """The call that needs a GPU, with a plain loop in the place of its kernel."""

    def loop(query, key, value, ends, ends_k, longest, longest_k, *, scale, window_size, **grouped):
        assert ends is ends_k
        assert longest == longest_k == max(LENGTHS)
        assert window_size == (-1, 0)
        assert grouped == packed.GROUPED  # the model has fewer heads of keys
        parts = zip(*(states.tensor_split(ends[1:-1].tolist()) for states in (query, key, value)), strict=True)
        attend = torch.nn.functional.scaled_dot_product_attention
        spread = [[states.transpose(0, 1)[None] for states in part] for part in parts]
        outputs = [attend(*part, is_causal=True, scale=scale, enable_gqa=True) for part in spread]
        return torch.cat([output[0].transpose(0, 1) for output in outputs])

    monkeypatch.setattr(packed, "varlen_attn", loop)
    model, some = llama(), sequences()
    expected = packed_states(model, some)
    monkeypatch.setattr(packed, "has_kernel", lambda *_: True)
    torch.testing.assert_close(packed_states(model, some), expected, rtol=1e-5, atol=1e-5)


def test_a_kernel_that_fails_only_in_the_type_of_training_is_found_before_training(monkeypatch):
    """On a GPU the kernel takes all sequences at once in bfloat16 alone; in float32 nothing of it is seen."""

    def broken(*_, **__):
        raise TypeError("varlen_attn() got an unexpected keyword argument 'enable_gqa'")

    monkeypatch.setattr(packed, "varlen_attn", broken)
    monkeypatch.setattr(packed, "has_kernel", lambda *_: torch.is_autocast_enabled("cpu"))
    model, some = llama(), sequences()
    expected = padded_states(model, some)
    with pytest.raises(InputError, match=r"takes no packed rows: TypeError, varlen_attn\(\) got an unexpected"):
        enable_packing(model.backbone, torch.bfloat16)
    assert model.backbone.config._attn_implementation == OWN
    assert torch.equal(padded_states(model, some), expected)
    monkeypatch.undo()
    enable_packing(model.backbone, torch.bfloat16)
    assert model.backbone.config._attn_implementation == NAME


def test_enabling_keeps_the_mode_and_draws_no_random_numbers():
    model = llama().train()
    state = torch.get_rng_state()
    enable_packing(model.backbone)
    assert all(module.training for module in model.backbone.modules())
    assert torch.equal(torch.get_rng_state(), state)
    assert packed_mask is transformers.AttentionMaskInterface()[NAME]
