"""The thesis's tables about detection, for any annotated sets and any model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from kdray.lens.align import Aligned
from kdray.lens.evaluate import by_heads, by_layers, transfer, two_folds
from kdray.lens.features import (
    LOOKBACK,
    Follow,
    States,
    Table,
    depths,
    hidden_states,
    lookback,
    make_tables,
    unfollowed,
)
from kdray.lens.spans import PREDEFINED

Line = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """Rows of Table 4.4 (with 4.2 and 4.3 as further methods), of 4.9 and 4.10, and the numbers of spans by set and
    setting.
    """

    methods: list[Line]
    heads: list[Line]
    layers: list[Line]
    counts: list[Line]


def study(
    model: PreTrainedModel,
    sets: Mapping[str, Sequence[Aligned]],
    window: int,
    baselines: bool = True,
    follow: Follow = unfollowed,
) -> Study:
    """Everything about annotated sets, by name: each alone, and from each to every other. `follow` may show a progress
    bar.

    Raises:
        InputError: too few spans of one kind.
    """
    count = model.config.num_hidden_layers
    extracts = [lookback, hidden_states(baseline_states(count))] if baselines else [lookback]
    tables: dict[str, dict[tuple[str, int], Table]] = {
        name: {
            key: table
            for extract in extracts
            for key, table in make_tables(model, rows, (PREDEFINED, window), extract, follow).items()
        }
        for name, rows in sets.items()
    }
    counts = [_count(name, size, tables[name][LOOKBACK, size]) for name in sets for size in (PREDEFINED, window)]
    methods, heads, layers = [], [], []
    ways = list(itertools.permutations(sets, 2)) or [(name, None) for name in sets]
    names = dict.fromkeys(method for table in tables.values() for method, _ in table)
    for (source, target), method in follow(list(itertools.product(ways, names)), "fitting"):
        line = {"from -> to": _way(source, target), "method": method}
        for size in (PREDEFINED, window):
            line |= _line(tables[source][method, size], tables[target][method, size] if target else None, size)
        methods.append(line)
    for source, target in ways:
        if target:
            way = _way(source, target)
            pair = tables[source][LOOKBACK, PREDEFINED], tables[target][LOOKBACK, PREDEFINED]
            heads += [
                {"from -> to": way, "heads": f"{choice} {k}", "AUROC": value}
                for (choice, k), value in by_heads(*pair).items()
            ]
            by_layer = by_layers(*pair, count).items()
            layers += [
                {"from -> to": way, "layers": f"{first}-{last}", "AUROC": value} for (first, last), value in by_layer
            ]
    return Study(methods, heads, layers, counts)


def _way(source: str, target: str | None) -> str:
    return f"{source} -> {target}" if target else source


def baseline_states(count: int) -> dict[str, States]:
    """The baselines of Tables 4.2 and 4.3 in a model of `count` layers."""
    four, every = depths(count), range(1, count + 1)
    return {
        **{f"residual, layer {layer}": States([layer]) for layer in four[:3]},
        **{f"attention block, layer {layer}": States([layer], "attention") for layer in four[:3]},
        "residual, four layers": States(four),
        "residual, max over layers": States(every, pooling="max"),
        "residual, mean over layers": States(every, pooling="mean"),
    }


def _line(source: Table, target: Table | None, window: int) -> Line:
    kind = "spans" if window == PREDEFINED else "windows"
    train, test = two_folds(source)
    line = {f"{kind} train": train, f"{kind} test": test}
    return line | {f"{kind} transfer": transfer(source, target)} if target else line


def _count(name: str, window: int, table: Table) -> Line:
    kind = "predefined spans" if window == PREDEFINED else f"windows of {window}"
    factual = int(table.factual.sum())
    return {
        "set": name,
        "kind": kind,
        "number": len(table.factual),
        "factual": factual,
        "hallucinated": len(table.factual) - factual,
    }
