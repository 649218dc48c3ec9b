"""Several teachers as one: the weighted average of their probabilities, at temperature 1, as logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from kdray.artifacts.rows import Rows
from kdray.distill.labels import Asked, Signal, SoftLabels


class Ensemble:
    """Soft labels whose distribution is the sum over teachers of weight x softmax(logits); weights sum to 1.

    The teachers share a tokenizer; their heads may be of unequal widths, of which the least counts.
    """

    temperature = 1.0

    def __init__(self, signals: Sequence[Signal], weights: Sequence[float]) -> None:
        self.signals, self.weights = signals, weights

    @property
    def width(self) -> int | None:
        return min((signal.width for signal in self.signals if signal.width is not None), default=None)

    def read(self, rows: Sequence[int]) -> Mixture:
        return Mixture([signal.read(rows) for signal in self.signals], self.weights)

    def ask(self, rows: Rows, chosen: Sequence[int]) -> Mixture:
        """As each of the teachers, if they all can be asked."""
        return Mixture([cast("Asked", signal).ask(rows, chosen) for signal in self.signals], self.weights)


@dataclass(frozen=True)
class Mixture:
    """The same tokens' labels by several teachers.

    A chunk is the logarithm of the average: logits, whose softmax it is.
    """

    members: Sequence[SoftLabels]
    weights: Sequence[float]

    def __len__(self) -> int:
        return len(self.members[0])

    def chunk(self, begin: int, end: int, out: Tensor | None = None) -> Tensor:
        average: Tensor | None = None
        for member, weight in zip(self.members, self.weights, strict=True):
            logits = member.chunk(begin, end)
            assert isinstance(logits, Tensor)  # ensembles of sparse forms are refused with the grid
            # Only the real tokens share in the mass: with `out`, those it has room for.
            part = logits[:, : out.shape[1] if out is not None else None].float().log_softmax(-1) + math.log(weight)
            average = part if average is None else torch.logaddexp(average, part)
        assert average is not None
        return average if out is None else out.copy_(average)

    def pick(self, which: Tensor) -> Mixture:
        return Mixture([member.pick(which) for member in self.members], self.weights)
