"""Rows to one padded batch, with the positions whose next token is counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdray.data.rows import Rows


@dataclass(frozen=True)
class Batch:
    """[B, T] ids and mask (right-padded); [N, 2] (row, column) of the queries that predict a response token;
    [N] the tokens they predict."""

    input_ids: Tensor
    attention_mask: Tensor
    positions: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> Batch:
        return Batch(*(tensor.to(device) for tensor in self.__dict__.values()))


def collate(rows: Rows, chosen: Sequence[int]) -> Batch:
    """The batch of the rows `chosen`; none of them gives one masked sequence that counts no token.

    Padding is marked by the mask, never by a token id: pad and EOS may be the same token.
    """
    sequences = [rows.input_ids(row) for row in chosen] or [[0]]
    longest = max(map(len, sequences))
    input_ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids in sequences])
    mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in sequences])
    positions, labels = [], []
    for i, row in enumerate(chosen):
        for target in range(int(rows.prompt_lengths[row]), len(sequences[i])):
            positions.append((i, target - 1))
            labels.append(sequences[i][target])
    return Batch(input_ids, mask, torch.tensor(positions, dtype=torch.long).reshape(-1, 2), torch.tensor(labels, dtype=torch.long))
