"""The thesis's tables about detection, for any annotated sets and any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from kdray.lens.align import Aligned
from kdray.lens.evaluate import by_heads, by_layers, transfer, two_folds
from kdray.lens.features import LOOKBACK, States, Table, depths, hidden_states, lookback, make_tables
from kdray.lens.spans import PREDEFINED

Line = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """Rows of Table 4.4 (with 4.2 and 4.3 as further methods), of 4.9 and 4.10, and the numbers of spans by set and setting."""

    methods: list[Line]
    heads: list[Line]
    layers: list[Line]
    counts: list[Line]


def study(model: PreTrainedModel, source: Sequence[Aligned], target: Sequence[Aligned], window: int, baselines: bool = True) -> Study:
    """Everything about one source set, and its transfer to a target set (which may be empty).

    Raises:
        InputError: too few labels of one kind.
    """
    sets = {"source": source, "target": target} if target else {"source": source}
    count = model.config.num_hidden_layers
    extracts = [lookback, hidden_states(baseline_states(count))] if baselines else [lookback]
    tables = {
        role: {key: table for extract in extracts for key, table in make_tables(model, rows, (PREDEFINED, window), extract).items()}
        for role, rows in sets.items()
    }
    names = list(dict.fromkeys(name for name, _ in tables["source"]))
    methods = [{"method": name, **_line(tables, name, PREDEFINED), **_line(tables, name, window)} for name in names]
    counts = [_count(role, size, tables[role][LOOKBACK, size]) for role in sets for size in (PREDEFINED, window)]
    heads, layers = [], []
    if target:
        pair = tables["source"][LOOKBACK, PREDEFINED], tables["target"][LOOKBACK, PREDEFINED]
        heads = [{"heads": f"{choice} {k}", "transfer": value} for (choice, k), value in by_heads(*pair).items()]
        layers = [{"layers": f"{first}-{last}", "transfer": value} for (first, last), value in by_layers(*pair, count).items()]
    return Study(methods, heads, layers, counts)


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


def _line(tables: dict[str, dict[tuple[str, int], Table]], name: str, window: int) -> Line:
    kind = "spans" if window == PREDEFINED else "windows"
    train, test = two_folds(tables["source"][name, window])
    line = {f"{kind} train": train, f"{kind} test": test}
    if "target" in tables:
        line[f"{kind} transfer"] = transfer(tables["source"][name, window], tables["target"][name, window])
    return line


def _count(role: str, window: int, table: Table) -> Line:
    kind = "predefined spans" if window == PREDEFINED else f"windows of {window}"
    factual = int(table.labels.sum())
    return {"set": role, "kind": kind, "number": len(table.labels), "factual": factual, "hallucinated": len(table.labels) - factual}
