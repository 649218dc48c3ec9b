"""Cut models: saved and loaded again, they are the whole models whose dropped layers leave their input as it is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from kdray.models.cut import cut, drop_layers, renumbered
from kdray.models.load import load_folder
from kdray.spec.errors import InputError
from tests.tiny import write_model, write_tokenizer

SIZES = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 6, "num_attention_heads": 4}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
GPT = {"vocab_size": 97, "n_embd": 32, "n_layer": 6, "n_head": 4, "n_positions": 64}
LATENT = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "num_key_value_heads": 4,
}
ROUTED = EXPERTS | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1}
QUICK: dict[str, dict[str, Any]] = {  # by configuration; what stands behind a comma tells cases of one family apart
    "Qwen3Moe": GROUPED | EXPERTS | {"num_experts": 4, "decoder_sparse_step": 2, "mlp_only_layers": [3]},
    "SmolLM3": {"num_key_value_heads": 2, "no_rope_layer_interval": 4},
    "Gemma3Text": GROUPED | {"sliding_window": 5, "_sliding_window_pattern": 3},
    "GPT2": GPT,
}
OTHERS: dict[str, dict[str, Any]] = {
    "Llama": GROUPED,
    "Qwen2, a window above": {
        "num_key_value_heads": 2,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 3,
    },
    "Glm4Moe": GROUPED | ROUTED | {"first_k_dense_replace": 2},
    "Qwen3": GROUPED,
    "Gemma2": GROUPED | {"sliding_window": 5},
    "Mistral": GROUPED | {"sliding_window": 5},
    "Mixtral": GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Phi3": {"num_key_value_heads": 2},
    "GPTNeoX": {},
    "GPTNeo": {"attention_types": [[["global", "local"], 3]], "num_layers": 6, "num_heads": 4, "window_size": 5},
    "Bloom": {"n_head": 4, "n_layer": 6},
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "GptOss": GROUPED | {"sliding_window": 5, "num_local_experts": 4, "num_experts_per_tok": 2},
    "Cohere2": {"num_key_value_heads": 2, "sliding_window": 5},
    "Olmo2": {"num_key_value_heads": 2},
    "Granite": {"num_key_value_heads": 2},
    "DeepseekV3": LATENT | ROUTED | {"first_k_dense_replace": 3},
    "Ernie4_5_Moe": GROUPED | {"moe_num_experts": 4, "moe_k": 2, "moe_layer_start_index": 2, "moe_layer_end_index": 4},
    "Llama4Text": (
        GROUPED
        | {
            "intermediate_size_mlp": 48,
            "num_local_experts": 2,
            "interleave_moe_layer_step": 2,
            "attention_chunk_size": 5,
        }
    ),
    "RecurrentGemma": {"num_key_value_heads": 2, "attention_window_size": 5},
    "Mamba": {"state_size": 4},
    "Gemma4Text, wide heads in some layers": (
        GROUPED
        | {"sliding_window": 5, "global_head_dim": 16, "hidden_size_per_layer_input": 0, "num_kv_shared_layers": 0}
        | {"layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2}
    ),
    "FalconH1": (
        GROUPED | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1}
    ),
    "Lfm2": {"num_key_value_heads": 2, "full_attn_idxs": [1, 4]},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "Jamba": (
        {
            "num_key_value_heads": 2,
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "num_experts": 2,
            "mamba_d_state": 4,
        },
        (
            r"layer_types would be another \(its configuration counts layers by expert_layer_period,"
            r" expert_layer_offset, attn_layer_period"
        ),
    ),
    "DiffLlama": ({"num_key_value_heads": 2}, r"layer 3, then 1, would be another \(self_attn\.lambda_init\)"),
    "GPT2, weaker with depth": (
        GPT | {"scale_attn_by_inverse_layer_idx": True},
        r"\(attn\.scaling\) \(.* scale_attn_by_inverse_layer_idx\)",
    ),
    "Gemma3nText": (
        GROUPED
        | {
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 97,
            "altup_num_inputs": 2,
        }
        | {"intermediate_size": [48] * 6, "activation_sparsity_pattern": [0.0] * 6, "laurel_rank": 4}
        | {"layer_types": ["sliding_attention", "full_attention"] * 3},
        r"its layers depend on each other \(num_kv_shared_layers\)",
    ),
}


def tiny(case: str, extra: dict[str, Any]) -> PreTrainedModel:
    torch.manual_seed(0)
    given = TOKENS | ({} if case.startswith("GPT2") else SIZES) | extra
    model = AutoModelForCausalLM.from_config(getattr(transformers, f"{case.partition(',')[0]}Config")(**given)).eval()
    for parameter in model.parameters():
        if parameter.dim() < 2:  # norms and biases that are 1 and 0 would hide what is left out
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The list of layers, found in another way than in the package: the module list with most weights."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=lambda one: sum(p.numel() for p in one.parameters()))


def logits_without(model: PreTrainedModel, dropped: range, ids: Tensor) -> Tensor:
    """Of the whole model, the forward of each dropped layer replaced by one that returns its input."""
    tupled: dict[int, bool] = {}
    hooks = [
        blocks(model)[i].register_forward_hook(lambda _m, _a, out, i=i: tupled.update({i: isinstance(out, tuple)}))
        for i in dropped
    ]
    model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    for i in dropped:
        blocks(model)[i].forward = lambda hidden_states, *_, i=i, **__: (hidden_states,) if tupled[i] else hidden_states
    return model(input_ids=ids, use_cache=False).logits


@torch.no_grad()
def assert_cuts(case: str, extra: dict[str, Any], tokenizer: Path, folder: Path, dropped: range) -> None:
    shutil.copytree(tokenizer, folder / "whole")
    whole = tiny(case, extra)
    whole.save_pretrained(folder / "whole")
    cut(folder / "whole", folder / "cut", dropped.start, dropped.stop)
    again, _ = load_folder(folder / "cut")
    ids = torch.randint(3, 97, (2, 23), generator=torch.Generator().manual_seed(1))
    expected = logits_without(whole, dropped, ids)
    assert len(blocks(again)) == again.config.num_hidden_layers == 6 - len(dropped)
    assert (again(input_ids=ids, use_cache=False).logits - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (
        logits_without(again, range(1), ids) - expected
    ).abs().max() > 1e-2 * expected.abs().max()  # a layer is seen


@pytest.mark.slow
@pytest.mark.parametrize("case", QUICK)
def test_a_saved_cut_model_is_the_whole_one_whose_layers_are_skipped(
    case: str, tokenizer: Path, tmp_path: Path
) -> None:
    assert_cuts(case, QUICK[case], tokenizer, tmp_path, range(1, 3))


@pytest.mark.slow
@pytest.mark.parametrize("dropped", [range(3), range(1, 3), range(2, 3), range(3, 6)], ids=str)
@pytest.mark.parametrize("case", QUICK | OTHERS)
def test_so_it_is_in_all_families_wherever_the_cut_is(
    case: str, dropped: range, tokenizer: Path, tmp_path: Path
) -> None:
    assert_cuts(case, (QUICK | OTHERS)[case], tokenizer, tmp_path, dropped)


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_configuration_describes_is_refused_by_name_and_left_as_it_was(case: str) -> None:
    extra, said = REFUSED[case]
    model = tiny(case, extra)
    ids = torch.arange(3, 12)[None]
    before, expected = model.config.to_dict(), model(input_ids=ids).logits
    with pytest.raises(InputError, match=said) as refused:
        drop_layers(model, 1, 3, "student.drop_layers")
    assert str(refused.value).startswith(f"student.drop_layers: {type(model).__name__} without layers [1, 3): ")
    assert "\n" not in str(refused.value)
    assert model.config.to_dict() == before
    assert torch.equal(model(input_ids=ids).logits, expected)


@pytest.mark.slow
def test_what_only_the_computation_shows_is_refused_too(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a family that reads its own number during the forward pass: no module tells of it."""
    attention = transformers.models.llama.modeling_llama.LlamaAttention
    plain = attention.forward

    def by_number(self: Any, hidden_states: Tensor, **kwargs: Any) -> Any:
        return plain(self, hidden_states, **kwargs)[0] * (1 + self.layer_idx), None

    monkeypatch.setattr(attention, "forward", by_number)
    shutil.copytree(tokenizer, tmp_path / "whole")
    tiny("Llama", GROUPED).save_pretrained(tmp_path / "whole")
    with pytest.raises(InputError, match=r"without layers \[1, 3\): loaded again, it computes something else"):
        cut(tmp_path / "whole", tmp_path / "cut", 1, 3)
    cut(tmp_path / "whole", tmp_path / "upper", 4, 6)  # those that are left keep their numbers


def test_a_cut_model_in_memory_answers_from_its_cache_as_without(tmp_path: Path) -> None:
    model, _ = load_folder(write_model(tmp_path / "m", layers=5))
    kept = [model.model.layers[i] for i in (0, 3, 4)]
    drop_layers(model, 1, 3)
    assert list(model.model.layers) == kept
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():  # a wrong layer index would mix the layers up
        first = model(ids[:, :5], use_cache=True)
        second = model(ids[:, 5:], past_key_values=first.past_key_values)
        assert torch.allclose(second.logits, model(ids).logits[:, 5:], atol=1e-5)


@pytest.mark.parametrize(("first", "end"), [(0, 3), (2, 4), (1, 9)])
def test_layers_that_are_not_there_cannot_be_dropped(tmp_path: Path, first: int, end: int) -> None:
    write_model(tmp_path / "m", layers=3)
    with pytest.raises(InputError, match=r"^d: \[\d, \d\); the model has the layers 0 to 2, and one must be left$"):
        cut(tmp_path / "m", tmp_path / "cut", first, end, "d")
    assert not (tmp_path / "cut").exists()


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        (
            "Qwen3Moe",
            {"decoder_sparse_step": 2, "mlp_only_layers": [5]},
            {"decoder_sparse_step": 1, "mlp_only_layers": [0, 2, 3]},
        ),
        ("DeepseekV3", {"first_k_dense_replace": 3}, {"first_k_dense_replace": 1}),
        (
            "Ernie4_5_Moe",
            {"moe_layer_start_index": 2, "moe_layer_end_index": 4},
            {"moe_layer_start_index": 1, "moe_layer_end_index": 2},
        ),
        ("SmolLM3", {"no_rope_layers": [1, 0, 0, 0, 1, 1]}, {"no_rope_layers": [1, 0, 1, 1]}),
        ("Llama4Text", {"moe_layers": [0, 2, 3, 5]}, {"moe_layers": [0, 1, 3]}),
        ("Llama", {"eos_token_id": [1, 2, 3, 4, 5, 6]}, {}),  # as many as layers, and not of them
        ("Bloom", {"n_layer": 6}, {"n_layer": 4}),
    ],
)
def test_fields_are_cut_and_renumbered(name: str, fields: dict[str, Any], said: dict[str, Any]) -> None:
    sizes = {} if name == "Bloom" else {"num_hidden_layers": 6}
    config: PretrainedConfig = getattr(transformers, f"{name}Config")(**sizes, **fields)
    changes = renumbered(config, [0, 3, 4, 5])
    assert said.items() <= changes.items()
    assert fields.keys() <= changes.keys() or not said
    assert "eos_token_id" not in changes
