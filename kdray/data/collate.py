"""Rows to one batch, padded or packed, with the positions whose next token is counted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kdray.artifacts.rows import Rows


@dataclass(frozen=True)
class Batch:
    """[B, T] ids and mask; [N, 2] (row, column) of the queries that predict a response token; [N] the tokens they
    predict; of a packed batch, whose B is 1, also [1, T] position ids, which restart with every sequence.

    For an encoder-decoder ids and mask are of prompts, and the queries among [B, U] ids for the decoder.

    `positions` and `labels` come in the order of the rows, padded or packed, as soft labels do."""

    input_ids: Tensor
    attention_mask: Tensor
    positions: Tensor
    labels: Tensor
    position_ids: Tensor | None = None
    decoder_input_ids: Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        return replace(
            self, **{name: moved(tensor, device) for name, tensor in self.__dict__.items() if tensor is not None}
        )


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """`tensor` on a device; on a GPU by way of pinned memory, so that nobody waits for the copy."""
    if torch.device(device).type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def collate(rows: Rows, chosen: Sequence[int], start: int | None = None) -> Batch:
    """The rows `chosen`, right-padded to the longest; none of them gives one masked sequence that counts no token.

    Padding is marked by the mask, never by a token id: pad and EOS may be the same token. With the token that a decoder
    begins with, `start`, the batch is one for an encoder-decoder.
    """
    sequences = _sequences(rows, chosen)
    if start is not None:
        return _apart(rows, chosen, sequences, start)
    return Batch(*_padded(sequences), *_targets(rows, chosen, sequences, [(i, 0) for i in range(len(chosen))]))


def _apart(rows: Rows, chosen: Sequence[int], sequences: list[list[int]], start: int) -> Batch:
    """Prompts for the encoder, and for the decoder `start` and the response but for its last token."""
    cuts = [int(rows.prompt_lengths[row]) for row in chosen] or [1]
    responses = [ids[cut:] for ids, cut in zip(sequences, cuts, strict=True)]
    decoder_input_ids, _ = _padded([[start, *ids[:-1]] for ids in responses])
    positions = [(i, j) for i, ids in enumerate(responses) for j in range(len(ids))]
    labels = [token for ids in responses for token in ids]
    return Batch(
        *_padded([ids[:cut] for ids, cut in zip(sequences, cuts, strict=True)]),
        torch.tensor(positions, dtype=torch.long).reshape(-1, 2),
        torch.tensor(labels, dtype=torch.long),
        decoder_input_ids=decoder_input_ids,
    )


def _padded(sequences: list[list[int]]) -> tuple[Tensor, Tensor]:
    """[B, T] ids, padded on the right, and their mask."""
    longest = max(map(len, sequences))
    input_ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids in sequences])
    return input_ids, torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in sequences])


def pack(rows: Rows, chosen: Sequence[int]) -> Batch:
    """The rows `chosen` one after the other in one row of sum T_i tokens; none of them as in `collate`."""
    sequences = _sequences(rows, chosen)
    input_ids = torch.tensor([[token for ids in sequences for token in ids]])
    position_ids = torch.cat([torch.arange(len(ids)) for ids in sequences])[None]
    begins = [(0, begin) for begin in itertools.accumulate(map(len, sequences), initial=0)]
    return Batch(input_ids, torch.ones_like(input_ids), *_targets(rows, chosen, sequences, begins), position_ids)


def _sequences(rows: Rows, chosen: Sequence[int]) -> list[list[int]]:
    return [rows.input_ids(row) for row in chosen] or [[0]]


def _targets(
    rows: Rows, chosen: Sequence[int], sequences: list[list[int]], begins: list[tuple[int, int]]
) -> tuple[Tensor, Tensor]:
    """Positions and labels of the response tokens; `begins` says in which row and column each sequence begins."""
    positions, labels = [], []
    for row, ids, (i, begin) in zip(chosen, sequences, begins, strict=False):  # without rows there still is a sequence
        for target in range(int(rows.prompt_lengths[row]), len(ids)):
            positions.append((i, begin + target - 1))
            labels.append(ids[target])
    return torch.tensor(positions, dtype=torch.long).reshape(-1, 2), torch.tensor(labels, dtype=torch.long)
