"""A price as `kdray plan` prints it, and as `kdray plan --json` has it under `cost`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kdray.cost.amounts import Amounts, amounts_of
from kdray.cost.cards import CARDS, Card
from kdray.cost.estimate import Estimate
from kdray.cost.memory import Memory
from kdray.cost.models import decoders_of
from kdray.cost.pricing import estimate
from kdray.cost.share import MOST, SHARE, points_beside
from kdray.plan.steps import Plan
from kdray.spec.sections.running import Runtime
from kdray.store import Outer, Store

GB = 1e9
REMEDIES = {
    "teach": "more runtime.workers with engine fsdp, gradient_checkpointing, or method lora",
    "train": "more runtime.workers with engine fsdp, gradient_checkpointing, a runtime.micro_batch, or method lora",
    "generate": "a smaller score.batch",
    "measure": "a smaller score.batch",
    "soften": "a smaller soft_labels.batch, or soft_labels.quantise",
    "augment": "a smaller augment.batch",
}


@dataclass(frozen=True)
class Price:
    """What is left of a grid on every card. `per_hour` is what one GPU costs in USD."""

    estimates: Mapping[str, Estimate]
    card: Card
    gpus: int
    amounts: Amounts
    beside: int  # GPUs that answer and score while points train
    per_hour: float | None = None

    @property
    def own(self) -> Estimate:
        """On the card that was asked for."""
        return self.estimates[self.card.name]


def priced(
    plan: Plan, store: Store, outer: Outer, card: Card, gpus: int, rows: int | None, per_hour: float | None
) -> Price | list[str]:
    """The price of what is left; where something is not known that it takes, what that is, a line each."""
    found = estimates(plan, store, outer, list({**CARDS, card.name: card}.values()), rows, gpus)
    if not isinstance(found, dict):
        return found
    amounts = amounts_of(plan, store, rows)
    assert amounts
    runtime, share = plan.grid.runtime, scoring_share(found[card.name])
    workers, wanted = (None if value == "auto" else value for value in (runtime.workers, runtime.beside))
    points = points_beside(gpus // (workers or 1), gpus, workers or 1, share, wanted)
    return Price(found, card, gpus, amounts, gpus - points * (workers or 1), per_hour)


def estimates(
    plan: Plan, store: Store, outer: Outer, cards: Sequence[Card], rows: int | None, gpus: int = 1
) -> dict[str, Estimate] | list[str]:
    """What is left of a grid by card, of which there are so many GPUs; where something is not known that it takes, what
    that is, a line each.
    """
    decoders, unknown = decoders_of(plan, store, outer)
    amounts = amounts_of(plan, store, rows)
    if amounts is None:
        unknown.append("data: the number of rows, until they are prepared; say it by --rows")
    if unknown or amounts is None:
        return unknown
    return {card.name: estimate(plan, store, decoders, amounts, card, gpus) for card in cards}


def expected(plan: Plan, store: Store, outer: Outer, gpus: int = 1, memory: int | None = None) -> Estimate | None:
    """What is left of a grid on so many GPUs as fast as an H100, by which a run divides them and orders its points;
    `memory` is that of the smallest, in bytes, if it is known. None where no price is.
    """
    card = CARDS["H100"]
    found = estimates(plan, store, outer, [replace(card, memory=memory) if memory else card], rows=None, gpus=gpus)
    return found[card.name] if isinstance(found, dict) else None


def sharers(found: Estimate | None, runtime: Runtime, memory: int | None) -> int:
    """Points that share a GPU: as many as the grid says, else as many as a price says that knows a GPU's `memory`."""
    if runtime.points_per_gpu != "auto":
        return runtime.points_per_gpu
    return found.per_gpu if found and memory else 1


def scoring_share(found: Estimate | None) -> float:
    """The part of the GPUs that answers and scores get while points train: that of their hours in the hours of both."""
    return SHARE if found is None else min(MOST, found.scoring_share)


def listed(price: Price) -> dict[str, Any]:
    """Hours, bytes, and USD where a GPU's price is known."""
    own, hours = price.own, {name: sum(found.gpu_hours.values()) for name, found in price.estimates.items()}
    wall = own.wall_hours(price.gpus)
    return {
        "card": price.card.name,
        "gpus": price.gpus,
        "beside": price.beside,
        "points_per_gpu": own.per_gpu,
        "operations": own.operations,
        "gpu_hours": own.gpu_hours,
        "gpu_hours_by_card": hours,
        "wall_hours": wall if math.isfinite(wall) else None,
        "usd": hours[price.card.name] * price.per_hour if price.per_hour is not None else None,
        "memory": {what: dict(needed.parts) for what, needed in own.memory.items()},
        "does_not_fit": sorted(own.too_large()),
        "disk": dict(own.disk),
        "soft_labels_by_form": dict(own.labels),
        "left_out": own.left_out,
        "rows": {
            "train": price.amounts.train,
            "heldout": price.amounts.heldout,
            "tokens": price.amounts.tokens,
            "known": price.amounts.known,
        },
    }


def lines(price: Price) -> Iterator[str]:
    """For a reader: time, money, memory, disk, and what none of it counts."""
    own, card, unit = price.own, price.card, price.card.unit
    hours = own.gpu_hours
    if not hours:
        yield "nothing is left to be paid for"
        return
    whose = "as prepared" if price.amounts.known else "taken to be like Dolly's"
    yield (
        f"price of what is left, {price.amounts.train:,} rows of {price.amounts.tokens:.0f} tokens {whose}, "
        f"on {_rates(card)} (docs/cost.md):"
    )
    width, (of_time, of_an_hour) = max(map(len, hours)), ("hours", 1) if unit == "GPU" else ("minutes", 60)
    for kind, spent in hours.items():
        yield f"  {kind:<{width}}  {of_an_hour * spent:9,.1f} {unit}-{of_time}"
    total, wall = sum(hours.values()), own.wall_hours(price.gpus)
    takes = (
        f"{of_an_hour * wall:,.1f} {of_time} on {price.gpus} {unit}s"
        if math.isfinite(wall)
        else f"a step needs more than {price.gpus} {unit}s"
    )
    usd = f", {total * price.per_hour:,.0f} USD" if price.per_hour is not None else ""
    sum_of_all = f"{of_an_hour * total:9,.1f} {unit}-{of_time}"
    yield f"  {'all':<{width}}  {sum_of_all}, {takes}{usd}; {own.operations:.1e} operations"
    if own.per_gpu > 1:
        yield f"  {own.per_gpu} points train on each GPU (runtime.points_per_gpu)"
    if unit == "GPU" and own.scoring_share and math.isfinite(wall):
        yield f"  while points train, {price.beside} of {price.gpus} GPUs answer and score (runtime.beside)"
    others = {name: sum(found.gpu_hours.values()) for name, found in price.estimates.items() if name != card.name}
    yield "  on others: " + ", ".join(f"{name} {spent:,.0f}" for name, spent in others.items())
    yield f"memory of a {unit}, of {card.memory / GB:.0f} GB:"
    for what, needed in own.memory.items():
        yield f"  {what}: {_sizes(needed)}"
    for what in own.too_large():
        yield f"  {what} does not fit on {card.name}: {REMEDIES[what.partition(' ')[0]]}"
    yield "disk: " + ", ".join(f"{what} {size / GB:,.0f} GB" for what, size in own.disk.items() if size)
    if own.labels:
        yield "soft labels by form: " + ", ".join(f"{form} {size / GB:,.1f} GB" for form, size in own.labels.items())
    if own.left_out:
        yield f"not counted: {', '.join(own.left_out)}"


def _rates(card: Card) -> str:
    if card.unit == "GPU":
        return f"{card.name} at half of its data sheet's rates"
    return f"a core of this machine at {card.products / card.float32 / GB:.0f} GFLOP/s in float32, measured just now"


def _sizes(memory: Memory) -> str:
    parts = ", ".join(f"{name} {size / GB:.1f}" for name, size in memory.parts.items() if size >= GB / 20)
    return (
        f"{memory.total / GB:.1f} GB ({parts})"
        if len(memory.parts) > 1
        else f"{memory.total / GB:.1f} GB ({next(iter(memory.parts))})"
    )
