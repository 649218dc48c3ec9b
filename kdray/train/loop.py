"""The training loop: one optimiser step after the other on this process's share of every batch.

All that a step's result depends on is in `Settings`. How many processes share the batch, and in how many
micro-batches, is not: every loss is a sum over tokens divided by the token count of the whole batch.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from kdray.data.collate import collate, pack
from kdray.data.rows import Rows
from kdray.distill.objective import Objective
from kdray.models.head import ResponseModel
from kdray.score.heldout import Signal, heldout_sums
from kdray.train.order import Order, share
from kdray.train.settings import Settings


@dataclass(frozen=True)
class Ranks:
    """This process among those that share every batch."""

    rank: int = 0
    world: int = 1

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum over all ranks."""
        if self.world > 1:
            dist.all_reduce(values)
        return values


class DivergedError(RuntimeError):
    """The loss is no longer a finite number."""


class Loop:
    """Trains `model` in place. `steps()` yields the metrics of every step; save and restore with `state_dict()`."""

    def __init__(
        self,
        model: ResponseModel,
        rows: Rows,
        settings: Settings,
        *,
        signal: Signal | None,
        vocab_size: int,
        ranks: Ranks,
        micro_batch: int | None = None,
    ) -> None:
        self.model, self.rows, self.settings = model, rows, settings
        self.signal, self.vocab_size, self.ranks = signal, vocab_size, ranks
        self.device = next(model.parameters()).device
        self.order = Order(rows.train, settings.batch, settings.seed)
        self.objective = Objective(settings.alpha, vocab_size)
        self.micro_batch = micro_batch or settings.batch
        self.total_steps = self.step_of(settings.length)
        self.step = 0
        self.optimiser = torch.optim.AdamW(_groups(model, settings.weight_decay), lr=settings.lr)
        self.history: list[dict[str, float]] = []
        self._schedule = _schedule(settings)
        self._replica = DistributedDataParallel(model) if ranks.world > 1 else model
        torch.manual_seed(settings.seed)

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
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        sums = torch.zeros(2, dtype=torch.float64)
        micro_batches = share(batch, self.rows.lengths[batch], self.ranks.rank, self.ranks.world, self.micro_batch)
        for i, part in enumerate(micro_batches):
            sums += self._accumulate(part, tokens, last=i == len(micro_batches) - 1)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip or float("inf"))
        hard, soft = (self.ranks.sum(sums) / tokens).tolist()
        loss = hard + self.settings.alpha * soft
        if not torch.isfinite(norm) or not torch.isfinite(torch.tensor(loss)):
            raise DivergedError(f"loss {loss:g}, gradient norm {float(norm):g} at step {self.step + 1} with lr {lr:g}")
        self.optimiser.step()
        self.step += 1
        metrics = {"loss": loss, "ce": hard, "lr": lr, "grad_norm": float(norm), "tokens": tokens}
        if self.settings.alpha > 0:
            metrics["soft_ce"] = soft
        return {"step": self.step, "examples": self.step * self.settings.batch, **metrics}

    def _accumulate(self, part: list[int], tokens: int, *, last: bool) -> Tensor:
        """Add the gradient of a micro-batch; returns its [hard, soft] sums in nats."""
        batch = (pack if self.settings.packing else collate)(self.rows, part).to(self.device)
        teacher = None
        if self.signal is not None and self.settings.alpha > 0:
            teacher = self.signal.logits(part).to(self.device)
        quiet = contextlib.nullcontext()
        if isinstance(self._replica, DistributedDataParallel) and not last:
            quiet = self._replica.no_sync()
        with quiet:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.dtype == "bfloat16"):
                logits = self._replica(batch.input_ids, batch.attention_mask, batch.positions, batch.position_ids)
            sums = self.objective(logits, teacher, batch.labels)
            # DDP averages gradients over ranks where the sum is wanted.
            (sums.total * (self.ranks.world / tokens)).backward()
        return torch.tensor([float(sums.hard), float(sums.soft)], dtype=torch.float64)

    def heldout(self, batch: int) -> dict[str, float]:
        """Cross-entropy and, with soft labels, KL from the teacher on the held-out rows, in nats a token."""
        self.model.eval()
        mine = self.rows.heldout[self.ranks.rank :: self.ranks.world].tolist()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.dtype == "bfloat16"):
            sums = heldout_sums(self.model, self.rows, mine, self.signal, self.vocab_size, batch)
        hard, divergence, tokens = self.ranks.sum(sums).tolist()
        return {"heldout_ce": hard / tokens} | ({"heldout_kl": divergence / tokens} if self.signal else {})

    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights that the next step depends on."""
        return {"step": self.step, "optimiser": self.optimiser.state_dict(), "rng": torch.get_rng_state()}

    def load_state_dict(self, state: dict[str, Any], history: list[dict[str, float]]) -> None:
        self.step, self.history = state["step"], list(history)
        self.optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["rng"])


def _groups(model: ResponseModel, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with and without weight decay: norms and biases are the vectors among them."""
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices, vectors = [p for p in trained if p.ndim >= 2], [p for p in trained if p.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _schedule(settings: Settings) -> Any:
    """(step, total) -> factor on lr: linear warm-up, then the schedule over what is left."""
    name, params = settings.schedule["name"], settings.schedule["params"]
    curve = getattr(importlib.import_module(f"kdray.train.schedules.{name}"), name)

    def factor(step: int, total: int) -> float:
        warm = round(settings.warmup * total)
        if step < warm:
            return (step + 1) / warm
        return curve((step - warm) / max(total - warm, 1), **params)

    return factor
