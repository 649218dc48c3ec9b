"""Questions in one row against one plain pass a choice, in float64."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from kdray.models import likelihood as module
from kdray.models.head import ResponseModel
from kdray.models.likelihood import Continued, SharedPrefix
from kdray.spec.errors import InputError

SMALL = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3}
QUESTIONS = [
    Continued([5, 6, 7, 8, 9], [[1], [2], [3]]),
    Continued([4], [[10, 11, 12, 13], [10, 11]]),
    Continued(list(range(1, 30)), [[31, 32, 33], [34], [31, 32, 34, 35, 36], [40, 41]]),
]
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.3)
    ),
}


def plain(model: torch.nn.Module, context: list[int], continuation: list[int]) -> tuple[float, bool]:
    with torch.no_grad():
        logits = model(torch.tensor([[*context, *continuation]])).logits[0, len(context) - 1 : -1].double()
    logs = logits.log_softmax(1)[torch.arange(len(continuation)), continuation]
    return float(logs.sum()), logits.argmax(1).tolist() == continuation


@pytest.mark.parametrize("kind", MODELS)
def test_equal_to_one_pass_a_choice(kind, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 4)  # more than one chunk of logits
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    found = SharedPrefix(ResponseModel(model))(QUESTIONS)
    reference = model.double()
    for question, of_question in zip(QUESTIONS, found, strict=True):
        for continuation, (value, greedy) in zip(question.continuations, of_question, strict=True):
            expected, best = plain(reference, list(question.context), list(continuation))
            assert value == pytest.approx(expected, abs=1e-4)
            assert greedy == best


def test_the_greedy_continuation_is_found():
    torch.manual_seed(1)
    model = MODELS["llama"]().eval()
    best = []
    for _ in range(3):
        best.append(int(model(torch.tensor([[7, 8, *best]])).logits[0, -1].argmax()))
    worse = [*best[:2], (best[2] + 1) % 60]
    assert [hit for _, hit in SharedPrefix(ResponseModel(model))([Continued([7, 8], [best, worse])])[0]] == [
        True,
        False,
    ]


def test_a_window_too_short_is_refused_and_one_long_enough_is_not():
    torch.manual_seed(2)
    shared = SharedPrefix(ResponseModel(MistralForCausalLM(MistralConfig(**SMALL, sliding_window=16)).eval()))
    shared([Continued([1, 2, 3], [[4, 5], [6] * 13])])
    with pytest.raises(InputError, match="a sequence of 17 tokens and an attention window of 16; use hflm"):
        shared([Continued([1, 2, 3], [[4, 5], [6] * 15])])


def test_a_model_that_cannot_keep_choices_apart_is_refused():
    from transformers import MambaConfig

    torch.manual_seed(3)
    mamba = AutoModelForCausalLM.from_config(
        MambaConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1, state_size=4, initializer_range=0.5)
    )
    with pytest.raises(InputError, match=r"shared_prefix on MambaForCausalLM: .*; use hflm"):
        SharedPrefix(ResponseModel(mamba.eval()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_choices_that_see_each_other_or_stand_elsewhere_are_told_in_any_precision(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(4)
    model = MODELS["llama"]().eval()
    for parameter in model.parameters():
        parameter.data.mul_(3)  # so that attention is not flat, as in a trained model
    SharedPrefix(ResponseModel(model.to(dtype)))
    mask = SharedPrefix._mask
    with monkeypatch.context() as patch:
        patch.setattr(SharedPrefix, "_mask", lambda self, part: mask(self, torch.zeros_like(part)))
        with pytest.raises(InputError, match="a model that mixes sequences of one row"):
            SharedPrefix(ResponseModel(model))
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda *args, position_ids=None, **more: forward(*args, **more))
    with pytest.raises(InputError, match="a model that mixes sequences of one row"):
        SharedPrefix(ResponseModel(model))
