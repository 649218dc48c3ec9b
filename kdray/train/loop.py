"""The training loop: one optimiser step after the other on this process's share of every batch.

All that a step's result depends on is in `Settings`. How many processes share the batch, and in how many
micro-batches, is not: every loss is a sum over tokens divided by the token count of the whole batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdray.artifacts.rows import Rows
from kdray.data.collate import collate, pack
from kdray.distill.across import Across
from kdray.distill.labels import Signal, vocabulary
from kdray.distill.objective import Objective
from kdray.distill.student import Student
from kdray.models.head import ResponseModel
from kdray.score.heldout import heldout_sums
from kdray.spec.errors import InputError
from kdray.train.engines import Ranks, make_engine
from kdray.train.optimiser import schedule
from kdray.train.order import Order, share
from kdray.train.settings import Settings

DDP = {"name": "ddp", "params": {}}


class DivergedError(RuntimeError):
    """The loss is no longer a finite number."""


class Loop:
    """Trains `model` in place.

    `steps()` yields the metrics of every step; `resume` goes on from where another left off. Whether rank 0 is `asked`
    to stop goes round with a step's losses: after the step all ranks have the same answer, in `stopping`. `padded` says
    why rows are padded that were to be packed; the numbers are the same but for rounding.
    """

    def __init__(
        self,
        model: ResponseModel,
        rows: Rows,
        settings: Settings,
        *,
        signal: Signal | Across | None,
        vocab_size: int,
        ranks: Ranks,
        micro_batch: int | None = None,
        engine: Mapping[str, Any] = DDP,
        asked: Callable[[], bool] = lambda: False,
    ) -> None:
        self.asked, self.stopping = asked, False
        self.model, self.rows, self.settings = model, rows, settings
        self.signal, self.ranks = signal, ranks
        self.vocab_size = vocabulary(vocab_size, model.head, self.comparable)
        self.order = Order(rows.train, settings.batch, settings.seed)
        self.objective = _objective(settings, self.vocab_size)
        self.micro_batch = micro_batch or settings.batch
        self.total_steps = self.step_of(settings.length)
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.engine = make_engine(engine, Student(model), settings, ranks)
        self.device = next(model.parameters()).device
        self.padded = self._pack() if settings.packing else None
        self.packs = settings.packing and self.padded is None
        self._schedule = schedule(settings)

    def _pack(self) -> str | None:
        """Switch to packed rows, or say why the model takes none."""
        try:
            self.engine.student.pack(torch.bfloat16 if self.settings.dtype == "bfloat16" else None)
        except InputError as error:
            return error.found
        return None

    @property
    def comparable(self) -> Signal | None:
        """The signal, if its labels are of the student's own tokens: else there is no divergence to tell."""
        return None if isinstance(self.signal, Across) else self.signal

    def step_of(self, position: float) -> int:
        """The step at which a position, in the unit of the length, is reached."""
        return self.order.steps(position) if self.settings.unit == "epochs" else int(position)

    def steps(self) -> Iterator[dict[str, float]]:
        """Train to the end; yields each step's metrics after the weights have moved.

        Raises:
            DivergedError: the loss or the gradient is not finite; the weights have not moved.
        """
        while self.step < self.total_steps:
            metrics = self._take_step()
            self.history.append(metrics)
            yield metrics

    def _take_step(self) -> dict[str, float]:
        batch = self.order.batch_at(self.step)
        tokens = int(self.rows.response_lengths[batch].sum())
        lr = self.settings.lr * self._schedule(self.step, self.total_steps)
        self.model.train()
        self.seed_dropout()
        sums = torch.zeros(4, dtype=torch.float64, device=self.device)  # read once a step: a GPU is waited for
        if self.ranks.rank == 0 and self.asked():
            sums[3] = 1
        micro_batches = share(batch, self.rows.lengths[batch], self.ranks.rank, self.ranks.world, self.micro_batch)
        for i, part in enumerate(micro_batches):
            sums[:3] += self.accumulate(part, tokens, last=i == len(micro_batches) - 1)
        *terms, asked = self.ranks.sum(sums, self.device).tolist()
        hard, soft, uniform = (term / tokens for term in terms)
        self.stopping = asked > 0
        loss = self.objective.total(hard, soft, uniform)
        norm = self.engine.step(lr) if math.isfinite(loss) else math.nan
        if not math.isfinite(norm):
            raise DivergedError(f"loss {loss:g}, gradient norm {norm:g} at step {self.step + 1} with lr {lr:g}")
        self.step += 1
        metrics = {"loss": loss, "ce": hard, "lr": lr, "grad_norm": norm, "tokens": tokens}
        if self.settings.alpha > 0:
            metrics["soft"] = soft
        return {"step": self.step, "examples": self.step * self.settings.batch, **metrics}

    def accumulate(self, part: list[int], tokens: int, *, last: bool) -> Tensor:
        """Add the gradient of a micro-batch; returns its [hard, soft, uniform] sums in nats."""
        batch = pack(self.rows, part) if self.packs else collate(self.rows, part, self.model.start)
        batch = batch.to(self.device)
        soft = self.signal.read(part) if self.signal is not None and self.settings.alpha > 0 else None
        self.engine.expect(last=last)
        with self._autocast():
            # Engines average gradients over ranks where the sum is wanted.
            total, terms = self.engine(self.objective, batch, soft, self.ranks.world / tokens)
        self.engine.backward(total)
        return terms.detach().double()

    def heldout(self, batch: int) -> dict[str, float]:
        """Cross-entropy and, with soft labels, KL from the teacher on the held-out rows, in nats a token."""
        self.model.eval()
        heldout = self.rows.heldout
        mine = share(heldout.tolist(), self.rows.lengths[heldout], self.ranks.rank, self.ranks.world, batch)
        with self._autocast():
            sums = heldout_sums(
                self.engine, self.rows, mine, self.comparable, self.vocab_size, self.device, self.model.start
            )
        hard, divergence, tokens = self.ranks.sum(sums, self.device).tolist()
        return {"heldout_ce": hard / tokens} | ({"heldout_kl": divergence / tokens} if self.comparable else {})

    def _autocast(self) -> torch.autocast:
        bfloat16 = self.settings.dtype == "bfloat16"
        kept = self.engine.keeps_casts
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16, cache_enabled=kept)

    def seed_dropout(self) -> None:
        """By step and rank: a resumed run needs no random state to go on as the straight one would."""
        numbers = np.random.SeedSequence([self.settings.seed, self.step, self.ranks.rank])
        torch.manual_seed(int(numbers.generate_state(1, np.uint64)[0]))

    def resume(self, history: Sequence[dict[str, float]]) -> None:
        """Go on after the steps of `history`, a metrics row each; weights and optimiser are the engine's to put
        back.
        """
        self.step, self.history = len(history), list(history)


def _objective(settings: Settings, vocab_size: int) -> Objective:
    if settings.objective is None:
        return Objective(settings.alpha, vocab_size, smoothing=settings.smoothing)
    loss = settings.objective["loss"]
    kept = {name: settings.objective[name] for name in ("temperature", "weighting")}
    return Objective(settings.alpha, vocab_size, loss["name"], loss["params"], **kept, smoothing=settings.smoothing)
