"""The training loop: one optimiser step after the other on this process's share of every batch.

All that a step's result depends on is in `Settings`. How many processes share the batch, and in how many
micro-batches, is not: every loss is a sum over tokens divided by the token count of the whole batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from kdray.artifacts.rows import Answered, Rows
from kdray.data.collate import collate, pack
from kdray.distill.across import Across, SomeLabels
from kdray.distill.labels import Asked, Signal, SoftLabels, vocabulary
from kdray.distill.objective import Objective
from kdray.distill.student import Student
from kdray.models.head import ResponseModel
from kdray.score.heldout import heldout_sums
from kdray.spec.errors import InputError
from kdray.train.engines import Ranks, make_engine
from kdray.train.on_policy import Sampler
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

    With `settings.sampling` it needs the student's `tokenizer` and a signal that can be asked; `spent` then has the
    seconds of the last step that went into sampling and into asking.
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
        tokenizer: PreTrainedTokenizerBase | None = None,
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
        self.unlabelled = replace(self.objective, labelled=False)
        self.sampler, self.spent = None, dict[str, float]()
        if settings.sampling is not None:
            assert tokenizer is not None
            self.sampler = Sampler(model.whole, tokenizer, self.vocab_size, settings)
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
        sampled = self._sampled(batch)
        rows = self.rows if sampled is None else sampled
        tokens = int(rows.response_lengths[batch].sum())
        lr = self.settings.lr * self._schedule(self.step, self.total_steps)
        self.model.train()
        self.seed_dropout()
        sums = torch.zeros(4, dtype=torch.float64, device=self.device)  # read once a step: a GPU is waited for
        if self.ranks.rank == 0 and self.asked():
            sums[3] = 1
        micro_batches = share(batch, rows.lengths[batch], self.ranks.rank, self.ranks.world, self.micro_batch)
        for i, part in enumerate(micro_batches):
            sums[:3] += self.accumulate(part, tokens, last=i == len(micro_batches) - 1, sampled=sampled)
        *terms, asked = self.ranks.sum(sums, self.device).tolist()
        hard, soft, uniform = (term / tokens for term in terms)
        self.stopping = asked > 0
        loss = self._minimised(sampled).total(hard, soft, uniform)
        norm = self.engine.step(lr) if math.isfinite(loss) else math.nan
        if not math.isfinite(norm):
            raise DivergedError(f"loss {loss:g}, gradient norm {norm:g} at step {self.step + 1} with lr {lr:g}")
        self.step += 1
        metrics = {"loss": loss, "ce": hard, "lr": lr, "grad_norm": norm, "tokens": tokens}
        if sampled is not None:  # no labels: what the student thinks of what it has drawn, an estimate of its entropy
            metrics |= {"sampled_nll": metrics.pop("ce"), "sampled_length": tokens / len(batch)}
        if self.settings.alpha > 0:
            metrics["soft"] = soft
        return {"step": self.step, "examples": self.step * self.settings.batch, **metrics}

    def accumulate(self, part: list[int], tokens: int, *, last: bool, sampled: Rows | None = None) -> Tensor:
        """Add the gradient of a micro-batch, of `sampled` rows if there are any; returns its [hard, soft, uniform] sums
        in nats.
        """
        rows = self.rows if sampled is None else sampled
        batch = pack(rows, part) if self.packs else collate(rows, part, self.model.start)
        batch = batch.to(self.device)
        soft = self._soft_labels(part, sampled)
        self.engine.expect(last=last)
        with self._autocast():
            # Engines average gradients over ranks where the sum is wanted.
            total, terms = self.engine(self._minimised(sampled), batch, soft, self.ranks.world / tokens)
        self.engine.backward(total)
        return terms.detach().double()

    def _sampled(self, batch: list[int]) -> Rows | None:
        """The rows with responses to those of `batch` that the student samples, each rank its share of them; None on a
        step that is not on-policy.
        """
        self.spent = {} if self.sampler is None else {"sampling": 0.0, "teacher": 0.0}
        if self.sampler is None or not self.sampler.samples_at(self.step):
            return None
        with self._timed("sampling"):
            [mine] = share(batch, self.rows.prompt_lengths[batch], self.ranks.rank, self.ranks.world, len(batch))
            with self._autocast():
                responses = self.sampler.responses(self.rows, mine, self.step)
            return Answered(self.rows, self.ranks.gather(responses))

    def _soft_labels(self, part: list[int], sampled: Rows | None) -> SoftLabels | SomeLabels | None:
        """Of a micro-batch; of sampled rows the teacher is asked for them."""
        if self.signal is None or self.settings.alpha == 0:
            return None
        with self._timed("teacher"):
            return self.signal.read(part) if sampled is None else cast("Asked", self.signal).ask(sampled, part)

    def _minimised(self, sampled: Rows | None) -> Objective:
        """What is minimised: what is sampled has no hard labels."""
        return self.objective if sampled is None else self.unlabelled

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        """Add the seconds of what is done inside to `spent`, where times are kept: a GPU is waited for then."""
        if what not in self.spent:
            yield
            return
        began = self._now()
        yield
        self.spent[what] += self._now() - began

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

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
