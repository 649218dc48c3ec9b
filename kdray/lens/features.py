"""Features of spans: lookback ratios, and the hidden states that the thesis compares them with.

A response's [R, F] features become one mean vector a span as soon as they are there; only those are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from kdray.lens.align import Aligned
from kdray.lens.annotations import Sketch
from kdray.lens.ratios import Passage, backbone_of, ratios_of
from kdray.lens.spans import make_spans
from kdray.models.hooks import attention_of, blocks_of

Extract = Callable[[PreTrainedModel, Sequence[Passage]], Mapping[str, list[Tensor]]]  # by name, [R, F] for each passage
Follow = Callable[[Sequence[Any], str], Iterable[Any]]  # shows how far a loop over some items is, under a title
LOOKBACK = "lookback lens"


@dataclass(frozen=True)
class States:
    """A feature from hidden states at the queries that predict the response's tokens.

    `layers` count from 1; `residual` is a layer's output, `attention` that of its attention block before it is added.
    """

    layers: Sequence[int]
    part: Literal["residual", "attention"] = "residual"
    pooling: Literal["concatenate", "max", "mean"] = "concatenate"


@dataclass(frozen=True)
class Table:
    """Data of a classifier: [n, F] features, [n] whether a row is factual (1) or hallucinated (0), and its document."""

    features: np.ndarray
    factual: np.ndarray
    documents: list[Sketch]


def lookback(model: PreTrainedModel, passages: Sequence[Passage]) -> dict[str, list[Tensor]]:
    """[R, L * H] lookback ratios, layer by layer."""
    return {LOOKBACK: [ratios.flatten(1) for ratios in ratios_of(model, passages)]}


def hidden_states(wanted: Mapping[str, States]) -> Extract:
    """All the wanted features from one pass."""
    needed = {(states.part, layer) for states in wanted.values() for layer in states.layers}

    @torch.inference_mode()
    def extract(model: PreTrainedModel, passages: Sequence[Passage]) -> dict[str, list[Tensor]]:
        backbone, blocks = backbone_of(model), blocks_of(model)
        device, longest = next(backbone.parameters()).device, max(len(passage.input_ids) for passage in passages)
        ids = torch.tensor([[*p.input_ids, *[0] * (longest - len(p.input_ids))] for p in passages], device=device)
        queries = [slice(p.n_prompt - 1, len(p.input_ids) - 1) for p in passages]
        kept: dict[tuple[str, int], list[Tensor]] = {}

        def keep(key: tuple[str, int]) -> Callable[..., None]:
            def hook(_: Any, __: Any, output: Any) -> None:
                states = output[0] if isinstance(output, tuple) else output
                kept[key] = [states[i, rows].float().cpu() for i, rows in enumerate(queries)]

            return hook

        hooks = []
        for part, layer in needed:
            module = blocks[layer - 1]
            module = attention_of(module) if part == "attention" else module
            hooks.append(module.register_forward_hook(keep((part, layer))))
        try:
            backbone(input_ids=ids, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return {
            name: [
                _pool(torch.stack([kept[states.part, layer][i] for layer in states.layers]), states.pooling)
                for i in range(len(passages))
            ]
            for name, states in wanted.items()
        }

    return extract


def unfollowed(items: Sequence[Any], _: str) -> Sequence[Any]:
    """No progress bar."""
    return items


def depths(count: int) -> list[int]:
    """The layers of the thesis's baselines (32, 28, 24 and 20 of 32) in a model of `count` layers, counted from 1."""
    return [max(1, round(count * share)) for share in (1, 28 / 32, 24 / 32, 20 / 32)]


def batches(rows: Sequence[Aligned], tokens: int = 4096) -> Iterator[list[Aligned]]:
    """The rows in batches of at most so many tokens, padding included, those of one length together."""
    batch: list[Aligned] = []
    for row in sorted(rows, key=lambda row: -len(row.passage.input_ids)):
        if batch and (len(batch) + 1) * len(batch[0].passage.input_ids) > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def make_tables(
    model: PreTrainedModel,
    rows: Sequence[Aligned],
    windows: Sequence[int],
    extract: Extract = lookback,
    follow: Follow = unfollowed,
) -> dict[tuple[str, int], Table]:
    """The features of all spans by name and size of window (0: predefined), from one pass over the rows."""
    parts: dict[tuple[str, int], list[Table]] = {}
    for batch in follow(list(batches(rows)), "reading"):
        for name, features in extract(model, [row.passage for row in batch]).items():
            for row, values in zip(batch, features, strict=True):
                for window in windows:
                    parts.setdefault((name, window), []).append(_span_means(row, values.numpy(), window))
    return {key: _joined(tables) for key, tables in parts.items()}


def _span_means(row: Aligned, features: np.ndarray, window: int) -> Table:
    spans = make_spans(row.hallucinated, window)
    means = np.stack([features[list(span.tokens)].mean(0) for span in spans])
    return Table(means, np.array([int(span.factual) for span in spans]), [row.document] * len(spans))


def _joined(tables: Sequence[Table]) -> Table:
    return Table(
        np.concatenate([table.features for table in tables]),
        np.concatenate([table.factual for table in tables]),
        [document for table in tables for document in table.documents],
    )


def _pool(states: Tensor, pooling: str) -> Tensor:
    """[layers, R, d] -> [R, F]."""
    if pooling == "concatenate":
        return states.permute(1, 0, 2).flatten(1)
    return states.amax(0) if pooling == "max" else states.mean(0)
