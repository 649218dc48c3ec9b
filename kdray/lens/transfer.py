"""A lens of one model on another: a linear map from the other's heads to its own (section 4.5 of the thesis).

Both models read the same responses, those of the lens's model; the map is the least-squares one between their mean lookback
ratios, a response a row. A lens behind a map is again a lens: w . (A v + c) + b = (A^T w) . v + (w . c + b).
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LinearRegression
from torch import Tensor

from kdray.lens.classifier import Lens
from kdray.spec.errors import InputError


def map_heads(ratios_other: list[Tensor], ratios_own: list[Tensor]) -> LinearRegression:
    """The map from another model's heads to those of the lens's model, from the [R, L, H] ratios of the same responses.

    Raises:
        InputError: fewer than two responses, or different ones.
    """
    same = [a.shape[0] == b.shape[0] for a, b in zip(ratios_other, ratios_own, strict=True)]
    if len(same) < 2 or not all(same):
        found = f"{len(same)} responses" if all(same) else "responses of different lengths"
        raise InputError("lens", found, "a map of heads needs several responses, each read by both models")
    other, own = (np.stack([ratios.mean(0).flatten().numpy() for ratios in side]) for side in (ratios_other, ratios_own))
    return LinearRegression().fit(other, own)


def behind_map(lens: Lens, heads: LinearRegression, layers: int) -> Lens:
    """The lens for the other model, of `layers` layers."""
    weights = lens.weights.double().flatten().numpy()
    mapped = torch.from_numpy((np.asarray(heads.coef_).T @ weights).reshape(layers, -1))
    intercept = float(weights @ np.asarray(heads.intercept_)) + lens.intercept
    record = {**lens.record, "mapped_from": lens.id}
    return Lens(mapped, intercept, lens.window, lens.threshold, record, lens.documents)
