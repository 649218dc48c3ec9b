"""A lens of one model on another: a linear map from the other's heads to its own (section 4.5 of the thesis).

Both models read the same responses, each in tokens of its own; the map is the least-squares one between their mean
lookback ratios, a response a row. A lens behind a map is again a lens: w . (A v + c) + b = (A^T w) . v + (w . c + b).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from sklearn.linear_model import LinearRegression
from torch import Tensor
from transformers import PreTrainedModel

from kdray.lens.align import Aligned
from kdray.lens.annotations import Documents, Sketch
from kdray.lens.classifier import Lens
from kdray.lens.features import Follow, batches, unfollowed
from kdray.lens.ratios import ratios_of
from kdray.lens.training import FOLDS
from kdray.spec.errors import InputError

MAPPED = (
    "trained on another model, behind a map of heads; tested on documents that neither trained it nor fitted the map"
)


def kept_out(lens: Lens, documents: Sequence[Sketch]) -> set[Sketch]:
    """The documents that test a map: of those that did not train the lens as many as are a fifth of all, spread evenly.

    So they are the very documents that the lens's own training kept out, where it is given the same responses.

    Raises:
        InputError: no document is left to test or to fit.
    """
    known = sorted(set(documents))
    others = [document for document in known if document not in lens.documents]
    wanted = math.ceil(len(known) / FOLDS)
    if not others or len(known) < 2:
        found = "documents that all trained the lens" if known and not others else f"{len(known)} documents"
        raise InputError(
            "annotations", found, "a map of heads needs several, and tests on some that did not train the lens"
        )
    if len(others) <= wanted:
        return set(others[: len(known) - 1])
    return {others[i * len(others) // wanted] for i in range(wanted)}


def mean_ratios(model: PreTrainedModel, rows: Sequence[Aligned], follow: Follow = unfollowed) -> dict[str, Tensor]:
    """By id [L, H] mean lookback ratios of the responses."""
    means = {}
    for batch in follow(list(batches(rows)), "reading"):
        for row, ratios in zip(batch, ratios_of(model, [row.passage for row in batch]), strict=True):
            means[row.id] = ratios.mean(0)
    return means


def map_heads(other: Tensor, own: Tensor) -> LinearRegression:
    """The map from another model's heads to those of the lens's model: [n, L, H] mean ratios of the same responses by
    each.

    Raises:
        InputError: fewer than two responses, or not as many by one model as by the other.
    """
    if len(other) != len(own) or len(own) < 2:
        found = (
            f"{len(own)} responses"
            if len(other) == len(own)
            else f"{len(other)} responses by one model, {len(own)} by the other"
        )
        raise InputError("lens", found, "a map of heads needs several responses, each read by both models")
    return LinearRegression().fit(other.flatten(1).double().numpy(), own.flatten(1).double().numpy())


def behind_map(lens: Lens, heads: LinearRegression, layers: int) -> Lens:
    """The lens for the other model, of `layers` layers."""
    weights = lens.weights.double().flatten()
    slopes, constants = (torch.as_tensor(part, dtype=torch.float64) for part in (heads.coef_, heads.intercept_))
    mapped = (slopes.T @ weights).reshape(layers, -1)
    intercept = float(weights @ constants) + lens.intercept
    record = {**lens.record, "mapped_from": lens.id}
    return Lens(mapped, intercept, lens.window, lens.threshold, record, lens.documents)


def mapped(
    lens: Lens,
    other: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    documents: Mapping[str, Sketch],
    origin: Mapping[str, Any],
) -> Lens:
    """The lens behind the map that responses fit, by id their mean ratios in both models and their documents.

    These documents are then no test of it either. The record says where the map is from, `origin`, how many responses
    and documents fitted it, and how many of these documents had trained the lens.
    """
    ids = list(documents)
    means = [torch.stack([side[id] for id in ids]) for side in (other, own)]
    made = behind_map(lens, map_heads(*means), means[0].shape[1])
    fitted = set(documents.values())
    said: dict[str, Any] = {
        "protocol": MAPPED,
        "map": dict(origin),
        "map_responses": len(ids),
        "map_documents": len(fitted),
    }
    said |= {"map_documents_trained": sum(document in lens.documents for document in fitted)}
    return dataclasses.replace(made, record={**made.record, **said}, documents=together(lens, fitted))


def together(lens: Lens, documents: Iterable[Sketch]) -> Documents:
    """The documents that trained a lens, and others."""
    return Documents([*lens.documents.sketches, *documents])


def with_score(lens: Lens, score: Mapping[str, float], before: Mapping[str, float], documents: int) -> Lens:
    """The lens with its AUROC on windows of so many documents in its record, and that of the lens it is from on its own
    model.
    """
    known = not math.isnan(score["value"])
    test = {"auroc_test": score["value"] if known else None, "auroc_test_stderr": score["stderr"] if known else None}
    test |= {
        "windows_tested": score["n"],
        "documents_tested": documents,
        "auroc_before_map": before["value"] if known else None,
    }
    return dataclasses.replace(lens, record={**lens.record, **test})
