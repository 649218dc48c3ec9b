"""DoLa against its definition: slow, float64, one row at a time, hidden states from transformers and divergences from
scipy.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax
from transformers import AutoModelForCausalLM

from kdray.models import load_folder
from kdray.models.dola import contrast, dola_loglikelihoods, early_exits, jensen_shannon
from kdray.score.decodings import open_decoding
from kdray.score.prompts import Prompt
from kdray.spec.decodings import candidate_layers
from kdray.spec.errors import InputError
from tests.tiny import write_model

LAYERS, TOKENS = [2, 4], 12


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return load_folder(write_model(tmp_path_factory.mktemp("dola") / "m", layers=6, hidden=32))


def reference(model, ids, layers, plausibility, start=0):
    """The log-ratios after every token of `ids[start:]`, [T, V] in float64 with minus infinity, and the premature
    layers, [T].
    """
    output = model(torch.tensor([ids]), output_hidden_states=True)
    head = model.get_output_embeddings().weight.double().numpy()
    ratios, chosen = [], []
    for t in range(start, len(ids)):
        mature = log_softmax(output.logits[0, t].double().numpy())
        early = [log_softmax(head @ output.hidden_states[layer][0, t].double().numpy()) for layer in layers]
        distances = [jensenshannon(np.exp(mature), np.exp(q)) ** 2 for q in early]
        place = int(np.argmax(distances))
        plausible = np.exp(mature) >= plausibility * np.exp(mature).max()
        ratios.append(np.where(plausible, mature - early[place], -np.inf))
        chosen.append(place)
    return np.stack(ratios), chosen


@torch.no_grad()
def reference_answer(model, prompt, eos, plausibility=0.1, penalty=1.2):
    ids = list(prompt)
    while len(ids) < len(prompt) + TOKENS:
        scores = reference(model, ids, LAYERS, plausibility, start=len(ids) - 1)[0][0]
        for token in set(ids):
            scores[token] = scores[token] / penalty if scores[token] > 0 else scores[token] * penalty
        ids.append(int(scores.argmax()))
        if ids[-1] == eos:
            return ids[len(prompt) : -1]
    return ids[len(prompt) :]


@pytest.mark.slow
def test_answers_are_those_of_the_definition_whatever_the_batch(tiny):
    model, tokenizer = tiny
    texts = ["Ada is in Paris . Where does Ada live?", "Ben", "Where does Ben live? now .", "<|im_start|>user Cleo"]
    prompts = [Prompt(i, tokenizer(text)["input_ids"], "", "", [], []) for i, text in enumerate(texts)]
    assert len({len(prompt.input_ids) for prompt in prompts}) == 4  # so that rows are padded, with the eos token
    dola = open_decoding("dola", {"layers": LAYERS, "plausibility": 0.1, "repetition_penalty": 1.2})
    double = AutoModelForCausalLM.from_pretrained(model.name_or_path, dtype=torch.float64)
    expected = [reference_answer(double, prompt.input_ids, tokenizer.eos_token_id) for prompt in prompts]
    assert dola(model, tokenizer, prompts, TOKENS) == expected
    assert [dola(model, tokenizer, [prompt], TOKENS)[0] for prompt in prompts] == expected
    assert expected != open_decoding("greedy", {})(model, tokenizer, prompts, TOKENS)
    assert not model.model.layers[1]._forward_hooks


def test_every_row_has_its_own_premature_layer(tiny):
    model, _ = tiny
    ids = torch.arange(3, 33)[None]
    with torch.no_grad(), early_exits(model, LAYERS, lambda hidden: hidden[0]) as exits:
        mature = model(ids, use_cache=False).logits[0]
        ratios, chosen = contrast(mature, exits.logits(), 0.1)
        expected, places = reference(model, ids[0].tolist(), LAYERS, 0.1)
    assert chosen.tolist() == places
    assert len(set(places)) == 2
    assert np.array_equal(np.isneginf(expected), np.isneginf(ratios.numpy()))
    plausible = np.isfinite(expected)
    assert np.abs(ratios.numpy()[plausible] - expected[plausible]).max() < 1e-4


def test_the_divergence_is_scipys():
    logits = torch.randn(2, 7, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    p, q = logits.log_softmax(-1)
    assert jensen_shannon(p, q).numpy() == pytest.approx(jensenshannon(p.exp(), q.exp(), axis=1) ** 2, rel=1e-9)


@pytest.mark.parametrize("normalise", [False, True])
def test_likelihoods_of_choices(tiny, normalise):
    model, _ = tiny
    prompt, choices = list(range(20, 30)), [[40, 41, 42], [50], [7, 9]]
    got = dola_loglikelihoods(model, prompt, choices, LAYERS, 0.5, normalise=normalise)
    best = []
    for (value, likeliest), choice in zip(got, choices, strict=True):
        with torch.no_grad():
            ratios = reference(model, prompt + choice, LAYERS, 0.5, start=len(prompt) - 1)[0][:-1]
        ratios = np.where(np.isneginf(ratios), -1000.0, ratios)
        scores = log_softmax(ratios, axis=1) if normalise else ratios
        assert value == pytest.approx(sum(scores[i, token] for i, token in enumerate(choice)), rel=1e-5)
        assert likeliest == (scores.argmax(1).tolist() == choice)
        best.append(int(scores[0].argmax()))
    assert min(got)[0] < -1000  # a token that is not plausible
    assert dola_loglikelihoods(model, prompt, [best[:1], [7]], LAYERS, 0.5)[0][1] is True
    alone = [dola_loglikelihoods(model, prompt, [choice], LAYERS, 0.5, normalise=normalise)[0][0] for choice in choices]
    assert [value for value, _ in got] == pytest.approx(alone, rel=1e-5)
    with pytest.raises(InputError, match="empty"):
        dola_loglikelihoods(model, prompt, [[]], LAYERS)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("Qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": False}),
        (
            "Gemma2",
            {"num_key_value_heads": 2, "head_dim": 8, "final_logit_softcapping": 3.0, "tie_word_embeddings": False},
        ),
        ("GPTNeoX", {"tie_word_embeddings": False}),
    ],
)
def test_early_exits_of_other_families(name, extra):
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "vocab_size": 50,
    }
    model = getattr(transformers, f"{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(**sizes, **extra, pad_token_id=0)
    ).eval()
    ids = torch.arange(3, 12)[None]
    with torch.no_grad(), early_exits(model, [0, 1, 3], lambda hidden: hidden[0]) as exits:
        states = model(ids, output_hidden_states=True, use_cache=False).hidden_states
        for layer, logits in zip((0, 1, 3), exits.logits(), strict=True):
            assert torch.allclose(logits, exits.head(states[layer][0]), atol=1e-5), layer


@pytest.mark.parametrize(
    ("layers", "count", "tied", "expected"),
    [
        ("low", 32, False, list(range(0, 16, 2))),
        ("high", 32, False, list(range(16, 32, 2))),
        ("low", 30, True, [2, 4, 6, 8, 10, 12, 14]),
        ("high", 30, True, [16, 18, 20, 22, 24, 26, 28]),
        ("low", 80, False, list(range(0, 20, 2))),
        ("high", 80, False, list(range(60, 80, 2))),
        ("high", 4, True, [2]),
        ([5, 1], 6, True, [5, 1]),
        ([0], 6, False, [0]),
    ],
)
def test_buckets(layers, count, tied, expected):
    assert candidate_layers(layers, count, tied) == expected


@pytest.mark.parametrize(
    ("layers", "tied", "says"),
    [
        ([4, 6], False, ["layers: [4, 6]", "from 0 to 5"]),
        ([0, 2], True, ["[0, 2]", "from 1 to 5", "tied"]),
        ([2, 2], False, ["[2, 2]", "each once"]),
        ([], False, ["[]"]),
    ],
)
def test_layers_that_cannot_be_contrasted_with(layers, tied, says):
    with pytest.raises(InputError) as error:
        candidate_layers(layers, 6, tied)
    assert all(word in str(error.value) for word in says)


def test_a_bucket_without_layers():
    with pytest.raises(InputError, match="low of a model with 2 layers"):
        candidate_layers("low", 2, tied=True)
