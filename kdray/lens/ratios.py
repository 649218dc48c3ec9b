"""Lookback ratios: of given responses in one teacher-forced pass, and of a response while it is decoded.

The feature of response token y_i comes from the query that predicts it, at position P - 1 + i of a prompt of P tokens.
All of the prompt up to the end of its document (beginning-of-sequence token, instruction, document) is context, N
tokens; what follows (the tail of the template) and the response are new. The query's own key is always new, hence N <
P.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kdray.lens.attention import ACTIVE, NAME, Watch
from kdray.spec.errors import InputError

RULE = (
    "the predicting query; context is the prompt up to the document's end; the tail, the response and the query's own"
    " key are new"
)


@dataclass(frozen=True)
class Passage:
    """A prompt and its response as one list of token ids: [0, n_context) is context, [n_prompt, end) the response.

    Raises:
        InputError: no context, no tail after it, or a response of fewer than two tokens.
    """

    input_ids: Sequence[int]
    n_context: int
    n_prompt: int

    def __post_init__(self) -> None:
        if self.n_context < 1:
            raise InputError(
                "n_context", f"a context of {self.n_context} tokens", "a lookback ratio needs a context of at least one"
            )
        if self.n_context >= self.n_prompt:
            found = f"{self.n_context} context tokens in a prompt of {self.n_prompt}"
            raise InputError(
                "n_context", found, "must be less than n_prompt: the query that predicts the first token is itself new"
            )
        if self.n_response < 2:
            found = f"a response of {max(self.n_response, 0)} tokens"
            raise InputError(
                "input_ids", found, "a lookback ratio needs at least two: one alone has no new tokens before it"
            )

    @property
    def n_response(self) -> int:
        return len(self.input_ids) - self.n_prompt


class Sink(Protocol):
    """Takes the ratios of a pass layer by layer, and gives what it made of them."""

    def __call__(self, layer: int, ratios: Tensor) -> None: ...
    def take(self) -> Tensor: ...


class Ratios:
    """Keeps everything: [B, R, L, H]."""

    def __init__(self, layers: int) -> None:
        self.by_layer: list[list[Tensor]] = [[] for _ in range(layers)]

    def __call__(self, layer: int, ratios: Tensor) -> None:
        self.by_layer[layer].append(ratios)

    def take(self) -> Tensor:
        """[B, R, L, H] of all queries since the last call, in float32."""
        kept, self.by_layer = self.by_layer, [[] for _ in self.by_layer]
        _require_all([len(pieces) for pieces in kept])
        return torch.stack([torch.cat(pieces, dim=1) for pieces in kept], dim=2)


class WindowLogits:
    """Keeps only each token's logit, w . v + b: [B, R]. `weights` is [L, H]."""

    def __init__(self, weights: Tensor, intercept: float) -> None:
        self.weights, self.intercept = weights.float(), intercept
        self.layers: list[list[Tensor]] = [[] for _ in weights]

    def __call__(self, layer: int, ratios: Tensor) -> None:
        self.layers[layer].append(ratios @ self.weights[layer].to(ratios.device))

    def take(self) -> Tensor:
        """[B, R] of all queries since the last call, in float32."""
        kept, self.layers = self.layers, [[] for _ in self.layers]
        _require_all([len(pieces) for pieces in kept])
        return self.intercept + torch.stack([torch.cat(pieces, dim=1) for pieces in kept]).sum(0)


def lookback_ratios(model: PreTrainedModel, input_ids: Tensor | Sequence[int], n_context: int, n_prompt: int) -> Tensor:
    """The lookback ratios of one prompt and response: [T] or [1, T] ids -> [R, L, H] in float32.

    Raises:
        InputError: an encoder-decoder model, one whose attention cannot be watched, or lengths that make no passage.
    """
    ids = input_ids.reshape(-1).tolist() if isinstance(input_ids, Tensor) else list(input_ids)
    return ratios_of(model, [Passage(ids, n_context, n_prompt)])[0]


def ratios_of(model: PreTrainedModel, passages: Sequence[Passage]) -> list[Tensor]:
    """As `lookback_ratios`, for a batch in one pass: a tensor [R, L, H] for each passage."""
    return teacher_forced(model, passages, Ratios(n_layers(model)))


def token_logits(
    model: PreTrainedModel, passages: Sequence[Passage], weights: Tensor, intercept: float
) -> list[Tensor]:
    """w . v + b of every response token, [R] for each passage; the ratios themselves are never all in memory.

    The logit of a window is the mean of its tokens', as the logit of a mean vector is.

    Raises:
        InputError: `weights`, [L, H], are for another number of layers or heads.
    """
    config = backbone_of(model).config
    shape, own = tuple(weights.shape), (config.num_hidden_layers, config.num_attention_heads)
    if shape != own:
        raise InputError(
            "lens", f"weights for {shape[0]} layers x {shape[1]} heads", f"the model has {own[0]} x {own[1]}"
        )
    return teacher_forced(model, passages, WindowLogits(weights, intercept))


@torch.inference_mode()
def teacher_forced(model: PreTrainedModel, passages: Sequence[Passage], sink: Sink) -> list[Tensor]:
    """One pass over a batch, padded on the right; what `sink` took of each passage's response tokens."""
    backbone = backbone_of(model)
    device = next(backbone.parameters()).device
    longest = max(len(passage.input_ids) for passage in passages)
    ids = torch.tensor([[*p.input_ids, *[0] * (longest - len(p.input_ids))] for p in passages], device=device)
    responses = max(passage.n_response for passage in passages)
    first = torch.tensor([passage.n_prompt - 1 for passage in passages], device=device)
    last = torch.tensor([len(passage.input_ids) - 2 for passage in passages], device=device)
    # Rows with shorter responses repeat their last query. No mask is needed: no query sees the padding after it.
    columns = (first[:, None] + torch.arange(responses, device=device)).minimum(last[:, None])
    n_context = torch.tensor([passage.n_context for passage in passages], device=device)
    with _active(backbone, Watch(n_context, torch.zeros_like(n_context), columns, sink)):
        backbone(input_ids=ids, use_cache=False)
    return [taken[: passage.n_response].cpu() for taken, passage in zip(sink.take(), passages, strict=True)]


@contextlib.contextmanager
def watch(
    model: PreTrainedModel,
    n_context: Sequence[int],
    n_prompt: int,
    padding: Sequence[int] | None = None,
    sink: Sink | None = None,
) -> Iterator[Sink]:
    """Watch `model` while it decodes from its cache: `take()` gives what was seen since the last call.

    Inside, run the model over the prompts (`n_prompt` columns, padded on the left by `padding` columns each) and then
    over new tokens, with one `past_key_values`. Each pass adds the queries from the prompt's last column on, which
    predict the response's tokens: a prompt's pass one, a pass over k new tokens k. Rows may be repeated or chosen on
    the way where all have the same context and padding (one entry in each list).

        with watch(model, [n_context], n_prompt) as seen:
            model(prompt, past_key_values=cache)
            seen.take()                                 # [1, 1, L, H]: of the query that predicts the first token

    Raises:
        InputError: an encoder-decoder model, or lengths that make no passage.
    """
    backbone = backbone_of(model)
    device = next(backbone.parameters()).device
    sink = sink or Ratios(n_layers(model))
    pads = list(padding) if padding is not None else [0] * len(n_context)
    for n, pad in zip(n_context, pads, strict=True):
        Passage(range(n_prompt - pad + 2), n, n_prompt - pad)
    state = Watch(torch.tensor(list(n_context), device=device), torch.tensor(pads, device=device), n_prompt - 1, sink)

    def count_past(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        cache = kwargs.get("past_key_values")
        state.past = cache.get_seq_length() if cache is not None else 0

    hook = backbone.register_forward_pre_hook(count_past, with_kwargs=True)
    try:
        with _active(backbone, state):
            yield sink
    finally:
        hook.remove()


def backbone_of(model: PreTrainedModel) -> Any:
    """The decoder that the attention belongs to.

    Raises:
        InputError: an encoder-decoder model.
    """
    if model.config.is_encoder_decoder:
        raise InputError(
            "model", f"{type(model).__name__}, an encoder-decoder model", "a lookback ratio needs a decoder-only one"
        )
    return model.get_decoder()


def n_layers(model: PreTrainedModel) -> int:
    return backbone_of(model).config.num_hidden_layers


@contextlib.contextmanager
def _active(backbone: PreTrainedModel, watch: Watch) -> Iterator[None]:
    """Switch the model's attention to the watched one, and back."""
    own: Any = backbone.config._attn_implementation
    token = ACTIVE.set(watch)
    try:
        backbone.set_attn_implementation(NAME)
        yield
    finally:
        ACTIVE.reset(token)
        backbone.set_attn_implementation(own)


def _require_all(counts: list[int]) -> None:
    if not all(counts):
        seen = sum(map(bool, counts))
        raise InputError(
            "model", f"{seen} of {len(counts)} layers could be watched", "needs softmax attention in every layer"
        )
