"""Soft labels of N tokens as the objective reads them: chunk by chunk, as logits or as a few weighted entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kdray.artifacts.rows import Rows
from kdray.models.head import Head


@dataclass(frozen=True)
class Sparse:
    """Entries of the teacher's distribution at a fixed temperature: [N, K] ids, [N, K] weights that sum to 1, [N]
    entropy in nats.

    An id may occur twice; its weights add up.
    """

    ids: Tensor
    weights: Tensor
    entropy: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def chunk(self, begin: int, end: int, out: Tensor | None = None) -> Sparse:
        """With `out` [C, V'] what of the distribution is on the first V' tokens: a teacher may have more than its
        student.
        """
        ids, weights, entropy = self.ids[begin:end], self.weights[begin:end], self.entropy[begin:end]
        some = Sparse(ids, weights, entropy)
        return some if out is None else some.within(out.shape[1])

    def within(self, size: int) -> Sparse:
        """What is on the ids 0 to `size` - 1, with weights that sum to 1 again."""
        outside = (self.ids >= size) | (self.ids < 0)
        rest = self.weights.masked_fill(outside, 0.0)
        # Chosen row by row on the device: to ask first whether there is such an id would wait for it.
        weights = torch.where(outside.any(1, keepdim=True), rest / rest.sum(1, keepdim=True), self.weights)
        return Sparse(self.ids.masked_fill(outside, 0), weights, self.entropy)

    def pick(self, which: Tensor) -> Sparse:
        return Sparse(self.ids[which], self.weights[which], self.entropy[which])


@dataclass(frozen=True)
class HiddenLabels:
    """[N, d] last hidden states of the teacher, and the head that turns them into logits."""

    states: Tensor
    head: Head

    def __len__(self) -> int:
        return len(self.states)

    @torch.no_grad()
    def chunk(self, begin: int, end: int, out: Tensor | None = None) -> Tensor:
        weight = self.head.linear.weight
        states = self.states[begin:end].to(weight.dtype)
        return self.head(states) if out is None else self.head.write(states, out)

    def pick(self, which: Tensor) -> HiddenLabels:
        return HiddenLabels(self.states[which], self.head)


@dataclass(frozen=True)
class LogitLabels:
    """[N, V] logits of the teacher."""

    logits: Tensor

    def __len__(self) -> int:
        return len(self.logits)

    def chunk(self, begin: int, end: int, out: Tensor | None = None) -> Tensor:
        return self.logits[begin:end] if out is None else out.copy_(self.logits[begin:end, : out.shape[1]])

    def pick(self, which: Tensor) -> LogitLabels:
        return LogitLabels(self.logits[which])


@dataclass(frozen=True)
class Teacher:
    """The head of a teacher that is being asked, the number of tokens that are real, and the temperature of what is
    kept.
    """

    head: Head
    vocab_size: int
    temperature: float

    def logits(self, states: Tensor) -> Tensor:
        """[N, d] hidden states -> [N, V] logits in float32."""
        return self.head(states.to(self.head.linear.weight.dtype))[:, : self.vocab_size].float()

    def log_probabilities(self, states: Tensor) -> Tensor:
        """[N, d] hidden states -> [N, V] at the temperature."""
        return (self.logits(states) / self.temperature).log_softmax(-1)


def id_dtype(vocab_size: int) -> torch.dtype:
    """The smallest type that holds every token id."""
    return torch.uint16 if vocab_size <= 1 << 16 else torch.int32


class SoftLabels(Protocol):
    """The teacher's distributions at N tokens."""

    def __len__(self) -> int: ...

    def chunk(self, begin: int, end: int, out: Tensor | None = None) -> Tensor | Sparse:
        """Of the tokens [begin, end): [C, V] logits, or weighted entries of the distribution.

        With `out` [C, V'] only the logits of the first V' tokens are made, there, and the caller may overwrite them.
        """
        ...

    def pick(self, which: Tensor) -> SoftLabels:
        """Of the tokens `which` [n] alone."""
        ...


class Signal(Protocol):
    """Where soft labels come from: a folder on disk, or the teacher itself."""

    @property
    def temperature(self) -> float:
        """That the labels are at; 1 if they are logits, which every temperature can be had from."""
        ...

    @property
    def width(self) -> int | None:
        """How many tokens the logits are of; None where there are none but a few entries of the distribution."""
        ...

    def read(self, rows: Sequence[int]) -> SoftLabels:
        """At the response tokens of `rows`, one row after the other."""
        ...


class Asked(Signal, Protocol):
    """A teacher beside the student, which reads whatever text it is given."""

    def ask(self, rows: Rows, chosen: Sequence[int]) -> SoftLabels:
        """At the response tokens of the rows `chosen` of `rows`, which need not be the signal's own."""
        ...


def vocabulary(tokens: int, head: Head, signal: Signal | None) -> int:
    """How many of a tokenizer's `tokens` both student and teacher have logits of: Gemma-3's has one more than its
    model.
    """
    widths = [tokens, head.linear.out_features, signal.width if signal is not None else None]
    return min(width for width in widths if width is not None)
