"""DoLa: decoding by contrasting layers (Chuang et al., ICLR 2024; arXiv 2309.03883).

A token counts by how much likelier the last (mature) layer makes it than an early (premature) one does, among the
tokens that the mature layer holds plausible. The premature layer is chosen anew at every token, as the candidate whose
distribution is farthest from the mature one's in Jensen-Shannon divergence, and for every row of a batch by itself.

An early layer's logits are the output head applied to its hidden states as they are, without the final norm, as the
method defines them. They are kept during an ordinary forward pass, at the wanted positions alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, PreTrainedModel

from kdray.models.head import Head, split
from kdray.models.hooks import blocks_of, listen
from kdray.spec.decodings import Layers, candidate_layers
from kdray.spec.errors import InputError

CHUNK = 512  # positions whose logits are there at a time
FLOOR = -1000.0  # in place of minus infinity, so that one implausible token does not ruin a likelihood


@dataclass(frozen=True)
class EarlyExits:
    """What the candidate layers would predict at the positions that are listened to."""

    layers: list[int]
    head: Head
    hidden: list[Tensor]  # [N, d] of each layer, in the last forward pass

    def logits(self) -> Iterator[Tensor]:
        """[N, V] of each layer in the last forward pass."""
        return (self.head(hidden) for hidden in self.hidden)


@contextmanager
def early_exits(model: PreTrainedModel, layers: Layers, select: Callable[[Tensor], Tensor]) -> Iterator[EarlyExits]:
    """Listen to forward passes of the model. Layer 0 is the embeddings, layer j the output of the j-th block.

    `select` picks the wanted positions, [N, d], out of hidden states, [B, T, d].

    Raises:
        InputError: the model has no such layers, or they cannot be found.
    """
    _, head = split(model)
    embeddings, blocks = model.get_input_embeddings(), blocks_of(model)
    chosen = candidate_layers(layers, len(blocks), tied=head.linear.weight is embeddings.weight)
    with listen([embeddings if layer == 0 else blocks[layer - 1] for layer in chosen], select) as hidden:
        yield EarlyExits(chosen, head, hidden)


def contrast(
    mature: Tensor, premature: Iterable[Tensor], plausibility: float, floor: float = -torch.inf
) -> tuple[Tensor, Tensor]:
    """How much likelier the mature layer makes each token than the premature layer, in nats.

    Args:
        mature: [N, V] logits.
        premature: [N, V] logits of every candidate layer.
        plausibility: a token is plausible whose probability is at least this share of the likeliest one's.
        floor: the value of the other tokens.

    Returns:
        [N, V] log-ratios, and [N] which of the candidates is the premature layer: the first of the farthest.
    """
    log_p = mature.log_softmax(-1)
    farthest = torch.full_like(log_p[:, 0], -torch.inf)
    base, chosen = torch.empty_like(log_p), torch.zeros(len(log_p), dtype=torch.long, device=log_p.device)
    for place, logits in enumerate(premature):
        log_q = logits.to(log_p.dtype).log_softmax(-1)
        distance = jensen_shannon(log_p, log_q)
        further = distance > farthest
        base = torch.where(further[:, None], log_q, base)
        farthest, chosen = torch.where(further, distance, farthest), torch.where(further, place, chosen)
    plausible = log_p >= log_p.amax(-1, keepdim=True) + torch.tensor(plausibility, dtype=log_p.dtype).log().item()
    return torch.where(plausible, log_p - base, floor), chosen


def jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    """[N, V] log-probabilities twice -> [N] Jensen-Shannon divergence in nats: the mean of both divergences from the
    mean.
    """
    log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0, dtype=log_p.dtype))
    return 0.5 * ((log_p.exp() * (log_p - log_m)).sum(-1) + (log_q.exp() * (log_q - log_m)).sum(-1))


class ContrastLayers(LogitsProcessor):
    """Puts DoLa's scores in place of the logits, and then a repetition penalty on them."""

    def __init__(self, exits: EarlyExits, lengths: Sequence[int], plausibility: float, penalty: float) -> None:
        """`lengths`: of the prompts, which are padded on the left; padding is no repetition."""
        self.exits, self.plausibility, self.penalty = exits, plausibility, penalty
        self.padding = [max(lengths) - length for length in lengths]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        """[B, T] ids so far and [B, V] logits -> [B, V] scores in nats."""
        ratios, _ = contrast(scores, self.exits.logits(), self.plausibility)
        seen = torch.zeros_like(ratios, dtype=torch.bool)
        for row, padding in enumerate(self.padding):
            seen[row, input_ids[row, padding:]] = True
        return penalise(ratios, seen, self.penalty)


def penalise(scores: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """[N, V] scores, those of `seen` tokens made less by the factor `penalty` (Keskar et al.

    2019, signs as in transformers).
    """
    return torch.where(seen, torch.where(scores > 0, scores / penalty, scores * penalty), scores)


@torch.inference_mode()
def dola_loglikelihoods(
    model: PreTrainedModel,
    prompt: Sequence[int],
    choices: Sequence[Sequence[int]],
    layers: Layers,
    plausibility: float = 0.1,
    *,
    normalise: bool = False,
) -> list[tuple[float, bool]]:
    """For multiple choice: the sum of DoLa's scores (nats) over each choice's tokens, teacher-forced after the prompt
    (token ids).

    And whether each of its tokens is the one of the highest score. Implausible tokens count -1000. Without `normalise`
    the scores are the log-ratios themselves, as for TruthfulQA, where that worked better than the log-softmax over them
    (appendix A.5). There is no repetition penalty. The prompt is read once, its choices behind it are one batch.

    Raises:
        InputError: the model has no such layers, or a prompt or choice is empty.
    """
    if not prompt or not all(choices):
        raise InputError("choices", "an empty prompt or choice", "at least one token each")
    backbone, head = split(model)
    cache, sizes = DynamicCache(config=model.config), [len(choice) for choice in choices]
    with early_exits(model, layers, lambda hidden: hidden[:, -1:]) as exits:
        ids = torch.tensor([list(prompt)], device=model.device)
        states = [_read(backbone, ids, cache)[:, -1:].expand(len(choices), -1, -1)]
        early = [[hidden.expand(len(choices), -1, -1)] for hidden in exits.hidden]
    if max(sizes) > 1:
        cache.batch_repeat_interleave(len(choices))
        with early_exits(model, layers, lambda hidden: hidden) as exits:
            rows = [
                [*choice[:-1], *[0] * (max(sizes) - len(choice))] for choice in choices
            ]  # no query sees what follows it
            states.append(_read(backbone, torch.tensor(rows, device=model.device), cache))
            for kept, hidden in zip(early, exits.hidden, strict=True):
                kept.append(hidden)
    device = head.linear.weight.device
    wanted = torch.arange(max(sizes), device=device) < torch.tensor(sizes, device=device)[:, None]
    mature, *premature = (torch.cat([part.to(device) for part in parts], dim=1)[wanted] for parts in (states, *early))
    tokens = torch.tensor([token for choice in choices for token in choice], device=device)
    found, best = [], []
    for places in torch.arange(len(tokens), device=device).split(CHUNK):
        scores, _ = contrast(
            head(mature[places]).float(), (head(hidden[places]) for hidden in premature), plausibility, FLOOR
        )
        scores, asked = scores.log_softmax(-1) if normalise else scores, tokens[places]
        found.append(scores.gather(1, asked[:, None])[:, 0].double())
        best.append(scores.argmax(1) == asked)
    pairs = zip(torch.cat(found).split(sizes), torch.cat(best).split(sizes), strict=True)
    return [(float(scores.sum()), bool(hits.all())) for scores, hits in pairs]


def _read(backbone: Any, ids: Tensor, cache: DynamicCache) -> Tensor:
    """[B, T] ids behind what the cache holds, which then holds them too -> [B, T, d] hidden states after the final
    norm.
    """
    return backbone(input_ids=ids, past_key_values=cache, use_cache=True).last_hidden_state
