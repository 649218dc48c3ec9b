"""Lookback ratios against their definition, for every family, padded, from the cache, and as logits."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel, T5Config, T5ForConditionalGeneration

from kdray.lens import Passage, lookback_ratios, ratios_of, token_logits, watch
from kdray.spec.errors import InputError
from tests.lens.families import FAMILIES, tiny
from tests.lens.reference import reference_ratios

TOLERANCE = {"rtol": 0.0, "atol": 1e-5}


def passage(seed: int = 0, context: int = 12, tail: int = 3, response: int = 9) -> Passage:
    ids = random.Random(seed).choices(range(1, 97), k=context + tail + response)
    return Passage(ids, context, context + tail)


QUICK = ("llama", "gemma2")  # plain attention, and capped in sliding windows


@pytest.fixture(
    params=[family if family in QUICK else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES]
)
def models(request: pytest.FixtureRequest) -> tuple[PreTrainedModel, PreTrainedModel]:
    """The same weights in float32, as in use, and in float64 for the reference."""
    exact = tiny(request.param)
    return copy.deepcopy(exact).float(), exact


def expected(model: PreTrainedModel, given: Passage) -> torch.Tensor:
    return reference_ratios(model, list(given.input_ids), given.n_context, given.n_prompt).float()


def test_a_batch_equals_the_definition(
    models: tuple[PreTrainedModel, PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, exact = models
    monkeypatch.setattr("kdray.lens.attention.BLOCK", 1)  # a block for every query
    before = model.config._attn_implementation
    batch = [passage(0), passage(1, context=5, tail=1, response=2), passage(2, context=2, tail=7, response=12)]
    for given, ratios in zip(batch, ratios_of(model, batch), strict=True):
        assert ratios.shape == (given.n_response, 4, 4)
        torch.testing.assert_close(ratios, expected(exact, given), **TOLERANCE)
    assert model.config._attn_implementation == before
    alone = lookback_ratios(model, torch.tensor([list(batch[1].input_ids)]), 5, 6)
    torch.testing.assert_close(alone, expected(exact, batch[1]), **TOLERANCE)


@pytest.mark.slow
def test_decoding_from_the_cache_sees_the_same(models: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    """Prompts padded on the left, then three tokens at once and the rest one by one, past the sliding window."""
    model, exact = models
    rows, width = [passage(0), passage(1, context=6, tail=2)], 15
    pads = [width - row.n_prompt for row in rows]
    ids = torch.tensor([[0] * pad + list(row.input_ids) for pad, row in zip(pads, rows, strict=True)])
    mask = torch.tensor([[0] * pad + [1] * len(row.input_ids) for pad, row in zip(pads, rows, strict=True)])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache, pieces = DynamicCache(config=model.config), []
    with torch.no_grad(), watch(model, [row.n_context for row in rows], width, pads) as seen:
        for begin, end in [(0, width), (width, width + 3), *((i, i + 1) for i in range(width + 3, ids.shape[1] - 1))]:
            model(
                ids[:, begin:end],
                attention_mask=mask[:, :end],
                position_ids=positions[:, begin:end],
                past_key_values=cache,
            )
            pieces.append(seen.take())
    assert [piece.shape[1] for piece in pieces] == [1, 3, *[1] * 5]
    for row, ratios in zip(rows, torch.cat(pieces, dim=1), strict=True):
        torch.testing.assert_close(ratios, expected(exact, row), **TOLERANCE)


def test_candidates_share_a_prefill() -> None:
    exact = tiny("llama")
    model, given = copy.deepcopy(exact).float(), passage()
    cache, prompt = DynamicCache(config=model.config), list(given.input_ids[: given.n_prompt])
    chunks = torch.tensor([[3, 4, 5], [6, 7, 8]])
    with torch.no_grad(), watch(model, [given.n_context], given.n_prompt) as seen:
        model(torch.tensor([prompt]), past_key_values=cache)
        first = seen.take()
        cache.batch_repeat_interleave(2)
        for column in chunks[:, :-1].split(1, dim=1):
            model(column, past_key_values=cache)
        ratios = torch.cat([first.expand(2, -1, -1, -1), seen.take()], dim=1)
    for chunk, got in zip(chunks.tolist(), ratios, strict=True):
        torch.testing.assert_close(
            got, reference_ratios(exact, prompt + chunk, given.n_context, given.n_prompt).float(), **TOLERANCE
        )


def test_token_logits_are_the_weighted_ratios() -> None:
    model = tiny("gemma2").float()
    batch, weights = [passage(0), passage(1, response=4)], torch.randn(4, 4)
    for ratios, logits in zip(ratios_of(model, batch), token_logits(model, batch, weights, 0.5), strict=True):
        torch.testing.assert_close(logits, (ratios * weights).sum((1, 2)) + 0.5)


def test_half_precision_costs_only_the_models_own_rounding() -> None:
    exact, given = tiny("llama"), passage()
    coarse = copy.deepcopy(exact).bfloat16()
    error = (ratios_of(coarse, [given])[0] - expected(exact, given)).abs()
    assert error.mean() < 0.03
    assert ratios_of(coarse, [given])[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ((20, 0, 4), "n_context: a context of 0 tokens"),
        ((20, 4, 4), "must be less than n_prompt"),
        ((20, 4, 19), "a response of 1 tokens"),
        ((20, 4, 25), "a response of 0 tokens"),
    ],
)
def test_lengths_that_make_no_passage(lengths: tuple[int, int, int], message: str) -> None:
    total, n_context, n_prompt = lengths
    with pytest.raises(InputError, match=message):
        lookback_ratios(tiny("llama"), torch.arange(total), n_context, n_prompt)


def test_models_that_have_no_lookback_ratio() -> None:
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=32, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    with pytest.raises(InputError, match="encoder-decoder"):
        lookback_ratios(t5, torch.arange(20), 4, 6)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=r"weights for 3 layers x 4 heads; the model has 4 x 4"):
        token_logits(tiny("llama"), [passage()], torch.zeros(3, 4), 0.0)
