"""Sampled answers: drawn from the nucleus, and a function of prompt and seed alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kdray.models import load_folder
from kdray.models.generation import draw, uniforms
from kdray.score.decodings import open_decoding
from kdray.score.prompts import Prompt
from tests.tiny import write_model


def test_tokens_come_as_often_as_the_nucleus_says():
    probabilities = np.array([0.05, 0.4, 0.1, 0.3, 0.15])
    logits = torch.tensor(np.log(probabilities) * 2).float()  # to be halved again by the temperature
    count = 20_000
    even = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    for top_p, kept in ((0.8, [1, 3, 4]), (0.7, [1, 3]), (0.4, [1]), (None, range(5))):
        tokens = draw(logits.expand(count, 5), even, temperature=2.0, top_p=top_p)
        wanted = np.where(np.isin(np.arange(5), kept), probabilities, 0)
        assert np.abs(np.bincount(tokens.numpy(), minlength=5) / count - wanted / wanted.sum()).max() < 2e-4, top_p


def test_random_numbers_belong_to_prompt_and_seed():
    numbers = {tuple(uniforms(prompt, seed, 3).tolist()) for prompt in ([1, 2], [1, 2, 3], [12]) for seed in (0, 1)}
    assert len(numbers) == 6
    assert torch.equal(uniforms([1, 2], 0, 5)[:3], uniforms([1, 2], 0, 3))


@pytest.mark.slow
def test_a_sample_does_not_depend_on_its_batch(tmp_path):
    model, tokenizer = load_folder(write_model(tmp_path / "m"))
    prompts = [
        Prompt(i, tokenizer(text)["input_ids"], "", "", [], [])
        for i, text in enumerate(["Ada lives in", "Where does Ben live? now .", "Ben"])
    ]

    def sample(prompts, seed):
        return open_decoding("sampled", {"temperature": 1.0, "top_p": None, "seed": seed})(
            model, tokenizer, prompts, 12
        )

    together = sample(prompts, 0)
    assert together == [sample([prompt], 0)[0] for prompt in prompts] == sample(prompts[::-1], 0)[::-1]
    assert together != sample(prompts, 1)
    assert len({token for answer in together for token in answer}) > 8
