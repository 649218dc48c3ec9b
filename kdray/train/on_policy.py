"""On-policy steps: responses that the student samples while it trains stand in the place of the data's own.

On-policy distillation (GKD, Agarwal et al. 2023, arXiv 2306.13649, algorithm 1). Whether a step is one is decided by a
coin of seed and step, and every token by a number of seed, step and row, so that a resumed run samples what the
straight one would, on any number of workers. Nothing is drawn from torch's own state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedModel, PreTrainedTokenizerBase

from kdray.artifacts.rows import Rows
from kdray.models.generation import by_halves, ends_of, generate_greedy, uniforms
from kdray.train.settings import Settings

COIN = 0x6B64  # sets the coin apart from the other numbers of a seed and step


class Sampler:
    """Samples a student's responses.

    Args:
        vocab_size: how many columns of the logits are real tokens; no other is ever drawn.
        settings: with `sampling`.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocab_size: int, settings: Settings
    ) -> None:
        assert settings.sampling is not None
        self.model, self.tokenizer, self.vocab_size = model, tokenizer, vocab_size
        self.share, self.seed = settings.on_policy, settings.seed
        self.temperature: float = settings.sampling["temperature"]
        self.top_k: int | None = settings.sampling["top_k"]
        self.max_new_tokens: int = settings.sampling["max_new_tokens"]
        self.ends = ends_of(model.generation_config, tokenizer)

    def samples_at(self, step: int) -> bool:
        """Whether optimiser step `step` (counted from 0) is on-policy."""
        coin = np.random.SeedSequence([self.seed, step, COIN]).generate_state(1, np.uint64)[0]
        return float(coin) / 2**64 < self.share

    def responses(self, rows: Rows, chosen: Sequence[int], step: int) -> dict[int, list[int]]:
        """By row of `chosen` the token ids that follow its prompt: up to a token that ends them, which is one of them,
        or `max_new_tokens`. The model is left in evaluation mode.
        """
        if not chosen:
            return {}
        self.model.eval()
        sampled = by_halves(lambda some: self._sample(rows, some, step), list(dict.fromkeys(chosen)))
        return dict(sampled)

    def _sample(self, rows: Rows, chosen: Sequence[int], step: int) -> list[tuple[int, list[int]]]:
        prompts = [rows.input_ids(row)[: int(rows.prompt_lengths[row])] for row in chosen]
        numbers = torch.stack([uniforms([step, row], self.seed, self.max_new_tokens) for row in chosen], dim=1)
        draws = _Draws(numbers, self.vocab_size, self.temperature, self.top_k)
        generate_greedy(self.model, self.tokenizer, prompts, self.max_new_tokens, processor=draws)
        drawn = torch.stack(draws.tokens, dim=1).tolist()
        return [(row, self._ended(tokens)) for row, tokens in zip(chosen, drawn, strict=True)]

    def _ended(self, tokens: list[int]) -> list[int]:
        """Up to the token that ends them: one is drawn for as long as another row of the batch goes on."""
        return tokens[: next((i + 1 for i, token in enumerate(tokens) if token in self.ends), len(tokens))]


class _Draws(LogitsProcessor):
    """Leaves the drawn token alone above minus infinity, and keeps it: the end of an answer is not given back."""

    def __init__(self, numbers: Tensor, vocab_size: int, temperature: float, top_k: int | None) -> None:
        self.numbers, self.vocab_size = numbers, vocab_size
        self.temperature, self.top_k = temperature, top_k
        self.tokens: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        """[B, T] ids and [B, V] logits -> [B, V]."""
        numbers = self.numbers[len(self.tokens)].to(scores.device)
        drawn = draw_in_order(scores[:, : self.vocab_size], numbers, self.temperature, self.top_k)
        self.tokens.append(drawn)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn[:, None], 0.0)


def draw_in_order(logits: Tensor, numbers: Tensor, temperature: float, top_k: int | None) -> Tensor:
    """[N, V] logits and [N] numbers in [0, 1) -> [N] tokens, drawn at a temperature from the `top_k` likeliest.

    A number picks the token in whose part of the probabilities, cumulated in the order of ids, it lies. In that order
    rounding hardly ever moves a border past a number; among tokens sorted by probability it would swap near equals.
    """
    tempered = logits / temperature
    if top_k is not None and top_k < logits.shape[1]:
        tempered = tempered.masked_fill(tempered < tempered.topk(top_k).values[:, -1:], -torch.inf)
    mass = tempered.softmax(-1).cumsum(-1, dtype=torch.float64)
    picked = torch.searchsorted(mass, (numbers * mass[:, -1])[:, None], right=True)
    return picked.clamp(max=logits.shape[1] - 1)[:, 0]
