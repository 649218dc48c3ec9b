"""Soft labels of a teacher with another tokenizer, at those of the student's tokens that have one.

Two ways to find which of the teacher's tokens belongs to a token of the student (`soft_labels.align`):

- `text`: both begin behind the same text, so that both models say what comes next in one and the same place, and the
  teacher's token begins with the student's. Its distribution becomes one over the student's tokens: the probability of
  every token of the teacher goes to the token that the student begins the same text with. With equal tokenizers these
  are the teacher's own soft labels.
- `position`: the n-th of both, as far as both have one, as universal logit distillation has it (arXiv 2402.12030);
  counted from the text's begin, where a student puts a special token before every response.

All other tokens have hard labels alone. Losses that compare any two vocabularies get the teacher's own distribution.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdray.artifacts.aligned import Aligned
from kdray.artifacts.rows import Rows
from kdray.artifacts.source import AcrossTokens
from kdray.distill.fused import fused_sums
from kdray.distill.labels import Signal, SoftLabels, Sparse
from kdray.distill.objective import Objective, Sums
from kdray.models.head import Head

LEAST = 1e-30  # a probability: its logarithm is finite, and nothing is lost in float32


@dataclass(frozen=True)
class SomeLabels:
    """Soft labels of the tokens `at` [n] among the N that are learned."""

    at: Tensor
    labels: SoftLabels


class Across:
    """A teacher's signal, read in its own tokens, as labels of the student's.

    Args:
        signal: of the teacher, over `theirs`.
        ours: the rows in the student's tokens.
        theirs: the same rows in the teacher's.
        how: tokens find each other.

    Raises:
        InputError: what is aligned is missing or damaged.
    """

    def __init__(
        self,
        signal: Signal,
        ours: Rows,
        theirs: Rows,
        how: AcrossTokens,
        device: torch.device | str,
    ) -> None:
        self.signal, self.how, self.device = signal, how, device
        self.lengths = np.stack([ours.response_lengths, theirs.response_lengths])
        self.aligned = Aligned(Path(how.folder))
        self.vocabulary = Vocabulary(self.aligned.first.to(device))

    @property
    def temperature(self) -> float:
        return self.signal.temperature

    def read(self, rows: Sequence[int]) -> SomeLabels:
        pairs, begins = [torch.zeros(2, 0, dtype=torch.long)], np.zeros((2, 1), dtype=np.int64)
        for row in rows:
            pairs.append(self._pairs(row) + torch.from_numpy(begins))
            begins = begins + self.lengths[:, row : row + 1]
        at, which = torch.cat(pairs, 1).to(self.device)
        labels = self.signal.read(rows).pick(which)
        return SomeLabels(at, (Translated if self.how.translated else Own)(labels, self.vocabulary))

    def _pairs(self, row: int) -> Tensor:
        if self.how.align == "text":
            return self.aligned.pairs(row)
        begin, (ours, theirs) = self.aligned.begin, self.lengths[:, row].tolist()
        return torch.arange(min(ours - begin, theirs)) + torch.tensor([[begin], [0]])


class Vocabulary:
    """By token of the teacher [W] the student's first token of the same text, -1 for none."""

    def __init__(self, first: Tensor) -> None:
        self.first = first

    def __len__(self) -> int:
        return len(self.first)

    @functools.lru_cache(2)  # noqa: B019 - there is one of it, as long as its signal
    def known(self, theirs: int, ours: int) -> tuple[Tensor, Tensor]:
        """Ids of the teacher, and of the student for each, of models with so many logits."""
        kept = ((self.first >= 0) & (self.first < ours))[:theirs].nonzero()[:, 0]
        return kept, self.first[kept]


@dataclass(frozen=True)
class Translated:
    """The teacher's distributions over the student's tokens."""

    labels: SoftLabels
    vocabulary: Vocabulary

    def __len__(self) -> int:
        return len(self.labels)

    def chunk(self, begin: int, end: int, out: Tensor | None = None) -> Tensor | Sparse:
        """As of all soft labels. Logits are logarithms of probabilities; what has no token of the student has no share
        in them.
        """
        assert out is not None  # only ensembles ask without, and they have one tokenizer
        theirs = self.labels.chunk(begin, end)
        if isinstance(theirs, Sparse):
            return replace(theirs, ids=self.vocabulary.first[theirs.ids]).within(out.shape[1])
        kept, ids = self.vocabulary.known(theirs.shape[1], out.shape[1])
        q = theirs[:, : len(self.vocabulary)].to(out.dtype).softmax(1).index_select(1, kept)
        return out.zero_().index_add_(1, ids, q / q.sum(1, keepdim=True)).clamp_(min=LEAST).log_()

    def pick(self, which: Tensor) -> Translated:
        return replace(self, labels=self.labels.pick(which))


@dataclass(frozen=True)
class Own:
    """The teacher's logits of its own tokens, without the padding of its head."""

    labels: SoftLabels
    vocabulary: Vocabulary

    def __len__(self) -> int:
        return len(self.labels)

    def chunk(self, begin: int, end: int, out: Tensor | None = None) -> Tensor:
        logits = self.labels.chunk(begin, end)
        assert isinstance(logits, Tensor)  # the loss takes no others, which the grid file is checked for
        return logits[:, : len(self.vocabulary)]

    def pick(self, which: Tensor) -> Own:
        return replace(self, labels=self.labels.pick(which))


def sums_of_some(
    objective: Objective, head: Head, hidden: Tensor, labels: Tensor, soft: SomeLabels, scale: float = 1.0
) -> Sums:
    """As `fused_sums`, where some of the N tokens have soft labels: the others are learned by the hard term alone, at
    the same weight.
    """
    bare = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    bare[soft.at] = False
    hard = replace(objective, alpha=0.0, weighting="sum")
    taught = fused_sums(objective, head, hidden[soft.at], labels[soft.at], soft.labels, scale)
    rest = fused_sums(hard, head, hidden[bare], labels[bare], None, scale * objective.hard_weight)
    return Sums(*(a + b for a, b in zip(vars(taught).values(), vars(rest).values(), strict=True)))
