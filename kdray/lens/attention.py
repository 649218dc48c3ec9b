"""An attention function that also says, for chosen queries, how much they look at the context and how much at new keys.

For the query q that predicts a token, with N context keys [0, N) and M = q + 1 - N new keys [N, q] (the prompt's tail,
the response so far and q itself), the lookback ratio of a head is

    LR = (A_ctx / N) / (A_ctx / N + A_new / M) = sigmoid(lse_ctx - log N - lse_new + log M)

with A the attention on the keys of a part and lse the log-sum-exp of their scores. The normaliser of the softmax
cancels, so that nothing is needed beyond the scores of these queries: the model's own output comes from fused attention
as always, and [B, H, R, T] scores, a block at a time, are all that is added. Keys outside a sliding window weigh 0 but
are counted in N and M.

The function is registered with transformers under `NAME`; a `Watch` tells it which queries, and takes what it finds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "kdray_lookback"
BLOCK = 2**23  # scores held at once: 32 MB


@dataclass
class Watch:
    """Which queries of the next forward pass are watched, and who takes their ratios.

    Columns are those of the batch, padding included. `sink` gets (layer, [B, R, H] ratios in float32).
    """

    n_context: Tensor  # [B] or [1], real tokens
    padding: Tensor  # [B] or [1], columns of padding on the left
    columns: Tensor | int  # [B, R] columns of the queries; or all from this one on
    sink: Callable[[int, Tensor], None]
    past: int = 0  # columns that the cache holds already

    def queries(self, length: int) -> Tensor:
        """[B or 1, R] the watched columns of a pass over `length` columns after the past ones."""
        if isinstance(self.columns, Tensor):
            return self.columns
        columns = torch.arange(self.past, self.past + length, device=self.padding.device)
        return columns[columns >= self.columns][None]


ACTIVE: ContextVar[Watch | None] = ContextVar("ACTIVE", default=None)


def watched_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """The attention interface: [B, H, T, D] queries, [B, H_kv, K, D] keys and values -> [B, T, H, D]."""
    watch = ACTIVE.get()
    if watch is not None:
        _record(watch, module, query, key, attention_mask, kwargs.get("scaling"), kwargs.get("softcap"))
    if kwargs.get("softcap") is None and kwargs.get("s_aux") is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    # Fused attention knows neither capped scores nor sinks: the model's own function does, over an additive mask.
    if attention_mask is None:
        attention_mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
        attention_mask = attention_mask.tril(key.shape[2] - query.shape[2])[None, None]
    additive = torch.zeros_like(attention_mask, dtype=query.dtype).masked_fill_(
        ~attention_mask, torch.finfo(query.dtype).min
    )
    eager = sys.modules[type(module).__module__].eager_attention_forward
    return eager(module, query, key, value, additive, **kwargs)


def _record(
    watch: Watch,
    module: Any,
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
) -> None:
    """Give the ratios of a layer's watched queries to the sink."""
    length, keys = query.shape[2], key.shape[2]
    columns = watch.queries(length).to(query.device)  # [B or 1, R]; layers may lie on several devices
    n_context, padding = watch.n_context.to(query.device), watch.padding.to(query.device)
    if not columns.shape[1]:
        return
    rows = columns - watch.past
    # A sliding cache has dropped its oldest keys: those that it holds end at the last query's.
    at = torch.arange(keys, device=query.device) + max(watch.past + length - keys, 0)
    in_context = at[None] < (padding + n_context)[:, None]
    n_context = n_context.float()[:, None]  # [B or 1, 1]
    n_new = (columns - padding[:, None] + 1) - n_context  # [B or 1, R]
    parts = torch.stack([in_context, ~in_context], dim=-1)[:, None].float()  # [B or 1, 1, K, 2]
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    key = key.float().transpose(2, 3)
    pieces = []
    for begin in range(0, rows.shape[1], step := max(1, BLOCK // (query.shape[0] * query.shape[1] * keys))):
        chosen = rows[:, None, begin : begin + step, None]
        visible = at <= chosen + watch.past if mask is None else mask.take_along_dim(chosen, dim=2)
        weights = _weights(query.take_along_dim(chosen, dim=2).float() * scale, key, visible, softcap)
        pieces.append(weights @ parts)
    mass_context, mass_new = torch.cat(pieces, dim=2).unbind(-1)  # [B, H, R]
    mean_context, mean_new = mass_context / n_context[:, None], mass_new / n_new[:, None]
    watch.sink(module.layer_idx, (mean_context / (mean_context + mean_new)).transpose(1, 2).to(watch.n_context.device))


def _weights(query: Tensor, key: Tensor, visible: Tensor, softcap: float | None) -> Tensor:
    """[B, H, R, D] scaled queries, [B, H_kv, D, K] keys -> [B, H, R, K] attention, a sink left out: it cancels."""
    batch, heads, queries, width = query.shape
    scores = (query.reshape(batch, key.shape[1], -1, width) @ key).view(batch, heads, queries, -1)
    if softcap is not None:
        scores = scores.div_(softcap).tanh_().mul_(softcap)
    return scores.masked_fill_(~visible, float("-inf")).softmax(-1)


AttentionInterface.register(NAME, watched_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
