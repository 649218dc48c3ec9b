"""Training on pairs of responses, by SimPO: the loop of points, whose rows are pairs and whose loss is of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from kdray.artifacts.rows import SCHEMA, Rows
from kdray.cite.best import Writer
from kdray.cite.pairs import Pair, pair_of
from kdray.data.collate import collate
from kdray.distill.simpo import SimPO
from kdray.models.head import ResponseModel
from kdray.score.kept import read_kept
from kdray.spec.errors import InputError
from kdray.train.loop import DivergedError, Loop
from kdray.train.order import share
from kdray.train.settings import Settings

HELDOUT = 10  # one pair in so many is not trained on


class PairRows(Rows):
    """Pairs as rows: the chosen response of pair i is row 2 i, which stands for the pair, the rejected one row 2 i + 1.

    The last of them are `heldout`: one in ten, if there are so many. `answers` is how many they were made from.
    """

    def __init__(self, pairs: Sequence[Pair], answers: int = 0) -> None:
        self._among, self.answers = None, answers
        responses = [(pair, ids) for pair in pairs for ids in (pair.chosen, pair.rejected)]
        rows = [
            {"source_row": i // 2, "input_ids": [*pair.prompt, *ids], "n_prompt": len(pair.prompt)}
            for i, (pair, ids) in enumerate(responses)
        ]
        self.table = pa.Table.from_pylist(rows, schema=SCHEMA)
        self.heldout = np.arange(2 * (len(pairs) - len(pairs) // HELDOUT), 2 * len(pairs), 2)
        self.test = np.array([], dtype=np.int64)

    @cached_property
    def train(self) -> np.ndarray:
        """The rows that stand for the pairs to train on."""
        return np.arange(0, len(self) - 2 * len(self.heldout), 2)


def read_pairs(answers: Path, tokenizer: Any, seed: int) -> PairRows:
    """The pairs that a model's kept answers make, as it reads them; `seed` is of how their citations are balanced.

    Raises:
        InputError: an answer is of another model or damaged, or there is no pair.
    """
    rows = [row for row in read_kept(answers, lambda: tokenizer) if row.get("cited")]
    if not rows:
        raise InputError("ANSWERS", f"no citations in {answers}", "give answers by the decoding selfcite")
    writer = Writer(tokenizer)
    pairs = [pair for row in rows if (pair := pair_of(writer, row, seed))]
    if not pairs:
        found = f"of {len(rows)} answers none has a citation that is better than its plain one"
        raise InputError("ANSWERS", found, "give more answers, or more candidates")
    return PairRows(pairs, len(rows))


class PairLoop(Loop):
    """As `Loop`, a step being on `settings.batch` pairs of `PairRows`, by `settings.simpo`."""

    def __init__(self, model: ResponseModel, rows: Rows, settings: Settings, **how: Any) -> None:
        super().__init__(model, rows, settings, **how)
        assert settings.simpo is not None
        self.simpo = SimPO(**settings.simpo, vocab_size=self.vocab_size)

    def _take_step(self) -> dict[str, float]:
        batch = self.order.batch_at(self.step)
        lr = self.settings.lr * self._schedule(self.step, self.total_steps)
        self.model.train()
        self.seed_dropout()
        sums = torch.zeros(4, dtype=torch.float64, device=self.device)
        if self.ranks.rank == 0 and self.asked():
            sums[3] = 1
        micro_batches = share(batch, self.rows.lengths[batch], self.ranks.rank, self.ranks.world, self.micro_batch)
        for i, part in enumerate(micro_batches):
            self.engine.expect(last=i == len(micro_batches) - 1)
            # Engines average gradients over ranks where the sum is wanted.
            total, terms = self._of_pairs(part, self.ranks.world / len(batch))
            self.engine.backward(total)
            sums[:3] += terms.double()
        *terms, asked = self.ranks.sum(sums, self.device).tolist()
        loss, margin, won = (term / len(batch) for term in terms)
        self.stopping = asked > 0
        norm = self.engine.step(lr) if math.isfinite(loss) else math.nan
        if not math.isfinite(norm):
            raise DivergedError(f"loss {loss:g}, gradient norm {norm:g} at step {self.step + 1} with lr {lr:g}")
        self.step += 1
        seen = {"step": self.step, "examples": self.step * self.settings.batch}
        tokens = sum(int(self.rows.response_lengths[row : row + 2].sum()) for row in batch)
        return {**seen, "loss": loss, "margin": margin, "won": won, "lr": lr, "grad_norm": norm, "tokens": tokens}

    @torch.no_grad()
    def heldout(self, batch: int) -> dict[str, float]:
        """Of the pairs that are not trained on: loss, margin in nats a token, and the share of those whose chosen
        response is the likelier one. Nothing where there are none.
        """
        kept = self.rows.heldout
        if not len(kept):
            return {}
        self.model.eval()
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        for part in share(kept.tolist(), self.rows.lengths[kept], self.ranks.rank, self.ranks.world, batch):
            sums += self._of_pairs(part)[1].double()
        means = (self.ranks.sum(sums, self.device) / len(kept)).tolist()
        return dict(zip(("heldout_loss", "heldout_margin", "heldout_won"), means, strict=True))

    def _of_pairs(self, part: Sequence[int], scale: float = 1.0) -> tuple[Tensor, Tensor]:
        both = [row for chosen in part for row in (chosen, chosen + 1)]
        batch = collate(self.rows, both).to(self.device)
        with self._autocast():
            return self.engine(self.simpo, batch, None, scale)
