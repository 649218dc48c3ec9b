"""Answers for a batch of prompts: greedy ones, or greedy in the scores that a processor makes of the logits."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from kdray.models.encoder_decoder import decoder_start

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


@torch.inference_mode()
def generate_greedy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    ends: Sequence[int] = (),
    processor: LogitsProcessor | None = None,
) -> list[list[int]]:
    """The new token ids for every prompt (token ids), without the token that ends them: one of the model's own, or of
    `ends`.

    Fewer than `max_new_tokens` if and only if the model ended its answer there. Prompts of unequal length are
    padded under an attention mask: on the left, or for an encoder, which counts positions from there, on the right.
    `processor` sees the ids so far, padding included, of an encoder-decoder those of its decoder, and the logits in
    float32.
    """
    own, longest, start = model.generation_config, max(map(len, prompts)), decoder_start(model)
    ends = [*ends_of(own, tokenizer), *ends]
    pad: Any = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def padded(rows: Sequence[list[int]], filler: int) -> Tensor:
        fillers = [[filler] * (longest - len(row)) for row in rows]
        made = [f + row if start is None else row + f for row, f in zip(rows, fillers, strict=True)]
        return torch.tensor(made, device=model.device)

    ids, mask = padded(prompts, pad), padded([[1] * len(prompt) for prompt in prompts], 0)
    begins: dict[str, Any] = {}
    if start is not None:  # and what every response that it has learned begins with
        begins = {"decoder_start_token_id": start, "forced_bos_token_id": getattr(own, "forced_bos_token_id", None)}
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=ends, pad_token_id=pad, **begins
    )
    generate: Any = model.generate
    processors = LogitsProcessorList([processor] if processor else [])
    model.generation_config = config  # its own would fill in what is left out here: a penalty, a longer minimum
    try:
        output = generate(input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=processors)
    finally:
        model.generation_config = own
    answers = output[:, longest if start is None else 1 :].tolist()
    return [list(itertools.takewhile(lambda token: token not in ends, answer)) for answer in answers]


def by_halves(answer: Callable[[Sequence[Asked]], Sequence[Answered]], prompts: Sequence[Asked]) -> list[Answered]:
    """What `answer` gives for all prompts at once or, where a GPU's memory is too short for that, for halves of them.

    Raises:
        torch.OutOfMemoryError: memory is short even for one.
    """
    try:
        return list(answer(prompts))
    except torch.OutOfMemoryError:
        if len(prompts) == 1:
            raise
    # Out here, since the tensors of the pass that failed are held as long as its error is.
    torch.cuda.empty_cache()  # does nothing without a GPU
    half = len(prompts) // 2
    return [found for some in (prompts[:half], prompts[half:]) for found in by_halves(answer, some)]


def ends_of(own: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a model's answer: the end of a sequence, and those of its own settings, such as the end of a
    turn.
    """
    eos: Any = tokenizer.eos_token_id
    more = own.eos_token_id if own else None
    return list(dict.fromkeys([eos, *(more if isinstance(more, list) else [] if more is None else [more])]))


class Sampling(LogitsProcessor):
    """Draws instead of taking the likeliest, each row from its own stream of random numbers: of one generation, to be
    called once a token.
    """

    def __init__(
        self, prompts: Sequence[list[int]], max_new_tokens: int, temperature: float, top_p: float | None, seed: int
    ) -> None:
        self.draws = torch.stack([uniforms(prompt, seed, max_new_tokens) for prompt in prompts], dim=1)
        self.temperature, self.top_p, self.made = temperature, top_p, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        """[B, T] ids and [B, V] logits -> [B, V] with the drawn tokens alone above minus infinity."""
        drawn = draw(scores, self.draws[self.made].to(scores.device), self.temperature, self.top_p)
        self.made += 1
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn[:, None], 0.0)


def uniforms(prompt: Sequence[int], seed: int, *shape: int) -> Tensor:
    """Random numbers in [0, 1), float64, that depend on the prompt and the seed alone: not on its batch or its
    device.
    """
    digest = hashlib.sha256(f"{seed} {list(prompt)}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def draw(logits: Tensor, uniform: Tensor, temperature: float, top_p: float | None) -> Tensor:
    """[N, V] logits and [N] numbers in [0, 1) -> [N] tokens, drawn at a temperature from the nucleus of mass `top_p`.

    The nucleus is the fewest likeliest tokens whose probabilities add up to at least `top_p` (Holtzman et al. 2020); a
    number picks the token in whose part of the cumulated probabilities it lies.
    """
    ranked, tokens = (logits / temperature).softmax(-1).sort(descending=True, stable=True)
    mass = ranked.cumsum(-1, dtype=torch.float64)
    kept = mass[:, -1] if top_p is None else torch.where(mass - ranked < top_p, mass, 0.0).amax(-1)
    rank = torch.searchsorted(mass, (uniform * kept)[:, None], right=True).clamp(max=logits.shape[1] - 1)
    return tokens.gather(1, rank)[:, 0]
