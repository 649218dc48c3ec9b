"""How a guide on hidden states is trained: the lens's protocol, on mean hidden states in place of lookback ratios.

Every fifth document is kept out, and tests it. A layer that is not given is chosen among the thesis's four depths by
AUROC on an inner fifth of the documents that are fitted, so that the test sees no choice; the chosen one is then fitted
on all of these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from kdray.lens.align import Aligned
from kdray.lens.classifier import fit, steepness
from kdray.lens.evaluate import auroc
from kdray.lens.features import Follow, States, Table, depths, hidden_states, make_tables, unfollowed
from kdray.lens.guides import HiddenGuide, Part
from kdray.lens.training import fifths, fitted, tested
from kdray.models.hooks import blocks_of
from kdray.spec.errors import InputError

SOLVER = "newton-cholesky"  # hidden states have a few components a thousand times as large as the others


def candidates(layer: int | None, count: int) -> list[int]:
    """The layer that is asked for or, with None, the thesis's four depths in a model of `count` layers, counted from 1.

    Raises:
        InputError: the model has no such layer.
    """
    if layer is not None and not 1 <= layer <= count:
        raise InputError("--layer", str(layer), f"the model has layers 1 to {count}")
    return sorted(set(depths(count))) if layer is None else [layer]


def read_states(
    model: PreTrainedModel,
    rows: Sequence[Aligned],
    layers: Sequence[int],
    part: Part,
    window: int,
    follow: Follow = unfollowed,
) -> dict[int, Table]:
    """By layer [n, d] mean hidden states of the windows of all responses, at the queries that predict their tokens."""
    names = {f"{part} {layer}": layer for layer in layers}
    extract = hidden_states({name: States([layer], part) for name, layer in names.items()})
    return {names[name]: table for (name, _), table in make_tables(model, rows, [window], extract, follow).items()}


def train_guide(
    tables: Mapping[int, Table], part: Part, window: int, origin: Mapping[str, Any], follow: Follow = unfollowed
) -> HiddenGuide:
    """The guide from the windows' hidden states by layer, with a record: `origin`, and what the protocol found.

    With several layers, `layer_auroc` has the AUROC by which one was chosen, in percent, on the inner fifth.

    Raises:
        InputError: the responses are to one document, or windows to be fitted are all of one kind.
    """
    record: dict[str, Any] = {**origin, "window": window}
    layer = next(iter(tables))
    if len(tables) > 1:
        found = {layer: _inner_auroc(table) for layer, table in follow(list(tables.items()), "choosing a layer")}
        if any(map(math.isnan, found.values())):  # of one layer, of all
            raise InputError(
                "--layer",
                "auto, and the documents to choose it by have windows of one kind",
                "give the number of a layer",
            )
        layer = max(found, key=lambda layer: found[layer])
        record |= {"layer_auroc": {str(layer): value for layer, value in found.items()}}
    inside, outside = fifths(tables[layer])
    model = fit(inside, SOLVER)
    weights, intercept = np.asarray(model.coef_)[0], float(np.asarray(model.intercept_)[0])
    logits = [table.features.astype(np.float64) @ weights + intercept for table in (inside, outside)]
    record |= fitted(inside) | {"auroc_train": auroc(inside.factual, logits[0])} | tested(outside, logits[1])
    record |= {"fit": {"iterations": int(np.asarray(model.n_iter_)[0]), "steepness": steepness(model, inside)}}
    return HiddenGuide(torch.from_numpy(weights.copy()), intercept, layer, part, record)


def layers_of(model: PreTrainedModel) -> int:
    return len(blocks_of(model))


def _inner_auroc(table: Table) -> float:
    """AUROC on a fifth of the documents to be fitted, of a classifier fitted on the others of these."""
    inside, outside = fifths(fifths(table)[0])
    return auroc(outside.factual, fit(inside, SOLVER).decision_function(outside.features))
