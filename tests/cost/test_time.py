"""Times by formula, against sums by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdray.cost.cards import CARDS, Card, card_of
from kdray.cost.decoder import Decoder
from kdray.cost.memory import Training
from kdray.cost.time import of_answers, of_looking, of_reading, of_training_step
from kdray.spec.errors import InputError
from tests.cost.test_memory import ALONE, paper

H100 = CARDS["H100"]
MODEL = paper("Llama-3.1-8B-Instruct")
FOUR: Training = replace(ALONE, workers=4, engine="fsdp", checkpointing=True)


def operations(model: Decoder, sequences: int) -> float:
    return 4 * model.forward(180 * sequences, 90, 100 * sequences)


def test_a_small_batch_is_bound_by_what_the_links_carry() -> None:
    """Two gathers and a scatter of 32.1 GB, three quarters of which come from the others, at 350 GB/s."""
    link = 3 * 0.75 * 32.12 / 350
    own = (3 * 6 * 6.98 + 3 * 8 * 8.03 + 20 * 8.03) / 2800  # casts, copies, AdamW
    assert of_training_step(MODEL, FOUR, H100, operations(MODEL, 2)) == pytest.approx(link + own, rel=1e-2)
    assert link + own == pytest.approx(0.37, abs=0.01)


def test_a_large_batch_is_bound_by_products() -> None:
    small, large = (of_training_step(MODEL, FOUR, H100, operations(MODEL, n)) for n in (2, 256))
    products = operations(MODEL, 256) / 4 / 500e12
    assert large - small == pytest.approx(products - 3 * 0.75 * 32.12 / 350, rel=0.02)


def test_points_that_share_a_gpu_slow_each_other_down_only_when_it_is_busy_all_the_time() -> None:
    model = replace(MODEL, layers=1)  # 4.2 ms of starts, far less of products
    small = [of_training_step(model, ALONE, H100, 1e9, sharers) for sharers in (1, 2, 1000)]
    own = small[0] - 3 * H100.training_launch + 1e9 / 500e12
    assert small[1] == pytest.approx(max(small[0], 2 * own))
    assert small[2] == pytest.approx(1000 * own)
    large = [of_training_step(MODEL, ALONE, H100, 1e15, sharers) for sharers in (1, 3)]
    assert large[1] == pytest.approx(3 * large[0])


def test_a_step_on_an_h200_takes_about_what_it_was_measured_to_take() -> None:
    """docs/gpu.md: Qwen2.5-1.5B with 8 x 512 tokens, and SmolLM2-135M without 8 of its 30 layers, 12 steps a second."""
    large, small = paper("Qwen2.5-1.5B-Instruct"), Decoder(22, 576, 9, 3, 64, 1536, 3, 49152, tied=True)
    for model, tokens, measured, within in ((large, 8 * 512, 0.150, 0.05), (small, 16 * 180, 1 / 12, 0.2)):
        work = 3 * model.forward(tokens, 90, tokens)
        assert of_training_step(model, ALONE, CARDS["H200"], work) == pytest.approx(measured, rel=within)


def test_held_out_rows_are_products_or_passes_and_dealt_out() -> None:
    work = MODEL.forward(1000 * 180, 90, 1000 * 105)
    assert of_looking(MODEL, ALONE, H100, work, 125) == pytest.approx(max(work / 500e12, 125 * 32 * 1.4e-3))
    four = of_looking(MODEL, replace(ALONE, workers=4), H100, work, 125)
    assert four == pytest.approx(32 * 32 * 1.4e-3), "32 batches of the first"
    assert of_looking(MODEL, ALONE, H100, 1e17, 125, sharers=3) == pytest.approx(3 * 1e17 / 500e12)


def test_one_worker_sends_nothing_and_float32_is_slower() -> None:
    alone = of_training_step(MODEL, ALONE, H100, 1e15)
    assert alone == pytest.approx(1e15 / 500e12 + (2 * 6 * 6.98 + 80 * 8.03) / 2800, rel=1e-2)  # and casts and AdamW
    assert of_training_step(MODEL, replace(ALONE, bfloat16=False), H100, 1e15) == pytest.approx(
        8 * 1e15 / 500e12 + 80 * 8.03 / 2800, rel=1e-2
    )


def test_a_token_takes_as_long_as_python_or_as_reading_the_weights() -> None:
    model = paper("Llama-3.1-8B-Instruct")
    batched = of_answers(model, H100, 1, 2, batch=16, prompts=1600, tokens=1, answer=100, vllm=False)
    assert batched == pytest.approx(100 * 100 * 32 * H100.launch, rel=0.05)  # 27 ms a token
    alone = of_answers(model, H100, 1, 4, batch=16, prompts=1, tokens=1, answer=100, vllm=True)
    assert alone == pytest.approx(100 * 4 * 8.03 / 2800, rel=0.1)


def test_keys_and_values_are_copied_with_every_token() -> None:
    """On a core at 100 GFLOP/s and 10 GB/s, SmolLM2-135M in float32: 0.54 GB of weights, and of 16 rows of 100 to 120
    tokens 30 layers of three heads of 64 keys and values, there and back.
    """
    core = Card("CPU", 1e10, 1e11, 1e10, 1e10, float32=1.0, launch=0.0)
    model = Decoder(30, 576, 9, 3, 64, 1536, 3, 49152, tied=True)
    products = model.forward(16 * 120, 50, 16 * 21) / 1e11
    a_token = (4 * 134.5e6 + 2 * 16 * 110 * 30 * 3 * 64 * 2 * 4) / 1e10
    found = of_answers(model, core, 1, 4, batch=16, prompts=16, tokens=100, answer=20, vllm=False)
    assert found == pytest.approx(products + 20 * a_token, rel=1e-3)
    fewer = of_answers(model, core, 1, 4, batch=32, prompts=16, tokens=100, answer=20, vllm=False)
    assert fewer == found, "there are no more rows than prompts"


def test_reading_is_products_or_passes() -> None:
    assert of_reading(MODEL, H100, 1, 2, 8, 800, 10, 10) == pytest.approx(100 * 32 * H100.launch)
    long = of_reading(MODEL, H100, 1, 2, 8, 800, 4000, 1)
    assert long == pytest.approx(MODEL.forward(800 * 4000, 2000, 800) / 500e12)
    assert of_reading(MODEL, H100, 2, 2, 8, 800, 4000, 1) == pytest.approx(long / 2)
    assert of_reading(MODEL, H100, 1, 4, 8, 800, 4000, 1) == pytest.approx(long * 8)


def test_cards_are_known_by_any_capitals() -> None:
    assert card_of("h100") is H100
    with pytest.raises(InputError, match="--card: 'H10'; did you mean 'H100'"):
        card_of("H10")
