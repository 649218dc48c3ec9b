"""Guided decoding: sample several continuations of a few tokens, keep the one that a guide scores highest, go on from
there.

With a Lookback Lens for a guide this is Lookback Lens Guided Decoding (Chuang et al., EMNLP 2024; arXiv 2407.07071).
The prompt is read once. The candidates of a chunk are one batch on copies of the cache, of which the chosen one's is
kept; the pass that predicts a chunk's first token is the same for all candidates and done once.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from kdray.models.generation import draw, uniforms


@dataclass(frozen=True)
class Draft:
    """Candidates for the next chunk. `seen` is what the guide's observer saw of the queries that predict their tokens.

    A candidate that ends the answer has the ending token as its last, and is shorter than `seen`, [K, T, ...], says.
    """

    prompt: Sequence[int]
    answer: Sequence[int]  # so far
    chunks: list[list[int]]
    log_probs: Tensor  # [K, T] nats of each token under the model itself
    seen: Tensor | None

    def mean(self, values: Tensor) -> Tensor:
        """[K, T, ...] values by token -> [K, ...] means over each candidate's own tokens."""
        return torch.stack([row[: len(chunk)].mean(0) for row, chunk in zip(values, self.chunks, strict=True)])


class Observer(Protocol):
    """Keeps something of every forward pass of the model."""

    def take(self) -> Tensor | None:
        """[B, 1, ...] of the last query of the pass since the last call; None if the guide needs nothing of it."""


class Guide(Protocol):
    """Scores candidate chunks."""

    def observe(
        self, model: PreTrainedModel, prompt: Sequence[int], n_context: int
    ) -> AbstractContextManager[Observer]:
        """A context in which the model decodes an answer to `prompt`, whose first `n_context` tokens are context."""
        ...

    def score(self, model: PreTrainedModel, draft: Draft) -> Tensor:
        """[K], higher for what is more likely factual."""
        ...


@dataclass(frozen=True)
class Sampler:
    """How candidates are drawn: `candidates` chunks of `chunk` tokens."""

    candidates: int = 8
    chunk: int = 8
    temperature: float = 0.9
    top_p: float | None = 0.95
    seed: int = 0


@dataclass(frozen=True)
class ChunkChoice:
    """One chunk's candidates with their scores, and which was kept."""

    chunks: list[list[int]]
    scores: list[float]
    kept: int


@dataclass
class Guided:
    """A guided answer, without the token that ends it, and how it came to be."""

    answer: list[int] = field(default_factory=list)
    choices: list[ChunkChoice] = field(default_factory=list)
    seen: list[Tensor] = field(default_factory=list)  # by chunk, [T, ...] of the kept candidate's tokens


@torch.inference_mode()
def decode_guided(
    model: PreTrainedModel,
    prompt: Sequence[int],
    n_context: int,
    guide: Guide,
    sampler: Sampler,
    max_new_tokens: int,
    ends: Collection[int],
) -> Guided:
    """The answer to one prompt (token ids), of fewer than `max_new_tokens` tokens if and only if it ended with one of
    `ends`.

    All random numbers follow from the prompt and the sampler's seed.

    Raises:
        InputError: the guide is for another model.
    """
    result, cache = Guided(), DynamicCache(config=model.config)
    numbers = uniforms(prompt, sampler.seed, max_new_tokens, sampler.candidates)
    pending = torch.tensor([list(prompt)], device=model.device)
    with guide.observe(model, prompt, n_context) as observer:
        while len(result.answer) < max_new_tokens:
            at = len(result.answer)
            draft = _candidates(
                model, cache, pending, numbers[at : at + sampler.chunk], sampler, ends, observer, prompt, result.answer
            )
            scores = guide.score(model, draft).tolist()
            kept = max(range(len(scores)), key=scores.__getitem__)
            chunk = draft.chunks[kept]
            result.choices.append(ChunkChoice(draft.chunks, scores, kept))
            if draft.seen is not None:
                result.seen.append(draft.seen[kept, : len(chunk)])
            if chunk[-1] in ends:
                result.answer += chunk[:-1]
                break
            result.answer += chunk
            cache.batch_select_indices(torch.tensor([kept], device=model.device))
            pending = torch.tensor([chunk[-1:]], device=model.device)
    return result


def _candidates(
    model: Any,
    cache: DynamicCache,
    pending: Tensor,
    numbers: Tensor,
    sampler: Sampler,
    ends: Collection[int],
    observer: Observer,
    prompt: Sequence[int],
    answer: Sequence[int],
) -> Draft:
    """One candidate a column of `numbers`, [T, K]; the cache then holds all but each candidate's last token.

    `pending`, [1, n], are the tokens that the model has not read yet.
    """
    steps, width = numbers.shape
    chunks: list[list[int]] = [[] for _ in range(width)]
    log_probs, seen = [], []
    for step in range(steps):
        logits = model(input_ids=pending, past_key_values=cache, logits_to_keep=1).logits[:, -1].float()
        noticed = observer.take()
        if step == 0:
            cache.batch_repeat_interleave(width)
            logits = logits.expand(width, -1)
            noticed = None if noticed is None else noticed.expand(width, *noticed.shape[1:])
        tokens = draw(logits, numbers[step].to(logits.device), sampler.temperature, sampler.top_p)
        log_probs.append(logits.log_softmax(-1).gather(1, tokens[:, None]))
        seen += [] if noticed is None else [noticed]
        for chunk, token in zip(chunks, tokens.tolist(), strict=True):
            if not chunk or chunk[-1] not in ends:
                chunk.append(token)
        if all(chunk[-1] in ends for chunk in chunks):
            break
        pending = tokens[:, None]
    return Draft(prompt, answer, chunks, torch.cat(log_probs, dim=1), torch.cat(seen, dim=1) if seen else None)
