"""Attention for packed rows: several sequences one after the other in one row, none of which sees another.

A row is packed by position ids that restart at 0. transformers then asks for a mask function that is false between
sequences; `packed_mask` reads from it where they begin, and gives the attention a list of sequences in place of a
matrix of T x T. `packed_attention` runs the model's own scaled dot product attention on each: what a sequence gets is
what it would get alone. Rows that are not packed take transformers' own path, unchanged.

`enable_packing` compares both on a short row, so that a model that mixes tokens in another way is refused.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from kdray.spec.errors import InputError

OWN, NAME = "sdpa", "kdray_packed"  # transformers' names of the attention before and after
PROBE = (5, 1, 7)  # tokens of the sequences on which a model is tried
TOLERANCE = 1e-3  # of the largest hidden state; one sequence seen by another is off by far more
# Before torch 2.12 the kernel takes fewer heads of keys than of queries without being told.
GROUPED = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


@dataclass(frozen=True)
class Sequences:
    """The sequences of a packed row, in place of its attention mask.

    `lengths` in tokens; `masks` [1, 1, T, T] (true: attend), None for plain causal attention; `ends` [S + 1]: 0 and the
    cumulated lengths, int32, on the row's device.
    """

    lengths: list[int]
    masks: list[Tensor | None]
    ends: Tensor


def packed_mask(
    *,
    batch_size: int,
    q_length: int,
    kv_length: int,
    mask_function: Callable[..., Tensor],
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    use_vmap: bool = False,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> Tensor | Sequences | None:
    """The mask interface: `Sequences` for a packed row, for everything else what transformers gives its SDPA."""
    if batch_size == 1 and attention_mask is None and q_length == kv_length and not use_vmap:
        at = torch.arange(1, q_length, device=device)
        # The mask is causal, so a token that does not see the one before it sees none before it.
        begins = at[~mask_function(0, 0, at, at - 1)].tolist()
        if begins:
            spans = list(itertools.pairwise([0, *begins, q_length]))
            window = local_size or q_length
            masks = [_inside(mask_function, *span, device) if span[1] - span[0] > window else None for span in spans]
            ends = torch.tensor([0, *begins, q_length], dtype=torch.int32, device=device)
            return Sequences([end - begin for begin, end in spans], masks, ends)
    return sdpa_mask(
        batch_size,
        q_length,
        kv_length,
        mask_function=mask_function,
        attention_mask=attention_mask,
        local_size=local_size,
        use_vmap=use_vmap,
        device=device,
        **kwargs,
    )


def _inside(mask_function: Callable[..., Tensor], begin: int, end: int, device: torch.device | str) -> Tensor:
    """[1, 1, T, T] mask inside a sequence that is longer than the model's attention window."""
    at = torch.arange(begin, end, device=device)
    return mask_function(0, 0, at[:, None], at[None, :])[None, None]


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | Sequences | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention interface: [1, H, T, D] queries and [1, H_kv, T, D] keys and values -> [1, T, H, D]."""
    if not isinstance(attention_mask, Sequences):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    if kwargs.get("softcap"):  # some versions of transformers give it to SDPA, which knows none
        raise ValueError("its attention caps scores")
    if has_kernel(query, value, attention_mask, kwargs.get("dropout", 0.0)):
        return _varlen(query, key, value, attention_mask, kwargs.get("scaling")), None
    lengths = attention_mask.lengths
    # One split: its backward is one concatenation, where slices would each fill a gradient of the whole row.
    parts = zip(
        query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), attention_mask.masks, strict=True
    )
    return torch.cat([sdpa_attention_forward(module, *part, **kwargs)[0] for part in parts], dim=1), None


def has_kernel(query: Tensor, value: Tensor, sequences: Sequences, dropout: float) -> bool:
    """Whether torch's own variable-length flash attention can take all sequences at once."""
    fits = query.shape[-1] == value.shape[-1] <= 256 and _dtype(query) in (torch.float16, torch.bfloat16)
    return query.is_cuda and fits and not dropout and all(mask is None for mask in sequences.masks)


def _dtype(query: Tensor) -> torch.dtype:
    """The dtype in which attention is computed: rotary embeddings leave float32 under autocast."""
    return torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else query.dtype


def _varlen(query: Tensor, key: Tensor, value: Tensor, sequences: Sequences, scale: float | None) -> Tensor:
    """[1, H, T, D] and [1, H_kv, T, D] -> [1, T, H, D] by one flash attention call over all sequences."""
    q, k, v = (states[0].transpose(0, 1).to(_dtype(query)) for states in (query, key, value))
    ends, longest = sequences.ends, max(sequences.lengths)
    grouped: Any = GROUPED if query.shape[1] != key.shape[1] else {}
    output = varlen_attn(q, k, v, ends, ends, longest, longest, scale=scale, window_size=(-1, 0), **grouped)
    assert isinstance(output, Tensor)
    return output[None]


def enable_packing(backbone: PreTrainedModel, autocast: torch.dtype | None = None) -> None:
    """Switch `backbone` to attention that keeps the sequences of a packed row apart; once is enough.

    It is tried as it is and, where it will run under `autocast` to another type, so too: a GPU's kernel takes no
    float32.

    Raises:
        InputError: a packed row does not give every sequence the hidden states that it has alone; nothing is switched.
    """
    own = backbone.config._attn_implementation
    if own == NAME:
        return
    dtypes = [None] if autocast is None else [None, autocast]
    if own != OWN:
        why = f"it uses {own} attention, which has no packed form"
    else:
        why = next((why for dtype in dtypes if (why := _try(backbone, dtype))), None)
    if why:
        raise InputError("train.packing", f"{type(backbone).__name__} takes no packed rows: {why}", "pad them")


def _try(backbone: PreTrainedModel, autocast: torch.dtype | None) -> str | None:
    """Switch `backbone`, or say why it is not switched: a packed row differs from its sequences alone."""
    device = next(backbone.parameters()).device
    # From all over the vocabulary: the first tokens are odd ones, whose states rounding alone may move far.
    ids = 7919 * torch.arange(1, 1 + sum(PROBE), device=device)[None] % backbone.config.vocab_size
    positions = torch.cat([torch.arange(length, device=device) for length in PROBE])[None]

    def states(ids: Tensor, position_ids: Tensor) -> Tensor:
        return backbone(input_ids=ids, position_ids=position_ids, use_cache=False).last_hidden_state

    was_training, why = backbone.training, None
    try:
        casts = torch.autocast(device.type, autocast, enabled=autocast is not None, cache_enabled=False)
        with torch.no_grad(), casts:
            backbone.eval()
            backbone.set_attn_implementation(OWN)
            pairs = zip(ids.split(PROBE, 1), positions.split(PROBE, 1), strict=True)
            alone = torch.cat([states(*pair) for pair in pairs], dim=1)
            backbone.set_attn_implementation(NAME)
            together = states(ids, positions)
            # Weights that are not finite are the loop's to find: they give the same nan here and there.
            rounding = torch.finfo(autocast or alone.dtype).eps
            limit = max(TOLERANCE, 8 * rounding) * alone.nan_to_num(0.0, 0.0, 0.0).abs().max().item()
            if not torch.allclose(together, alone, rtol=0.0, atol=limit, equal_nan=True):
                why = "there its sequences see each other"
            if backbone.config._attn_implementation != NAME:
                why = "its attention cannot be chosen"
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        why = f"{type(error).__name__}, {error}"
    finally:
        backbone.train(was_training)
    if why:
        backbone.set_attn_implementation(OWN)
    return why


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, packed_mask)
