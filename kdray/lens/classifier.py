"""The lens: a logistic regression on mean lookback ratios, P(factual) = sigmoid(w . v + b), with a record of where it
is from.

A lens is a folder: `lens.safetensors` (weights [L, H] and intercept, float64) and `lens.json`, its record with sketches
of the documents that trained it. One that was trained here has `kept_out.json` beside them, what it is tested on
(`kdray.lens.training`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from kdray.artifacts.lens import KEPT_OUT, RECORD, WEIGHTS
from kdray.lens.annotations import Documents
from kdray.lens.features import Table
from kdray.lens.ratios import RULE
from kdray.spec.errors import InputError
from kdray.store import fingerprint, io
from kdray.store.done import require_intact

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

TOLERANCE = 1e-10  # of the gradient of a row's mean loss


@dataclass(frozen=True)
class Lens:
    """`weights` [L, H] and `intercept` of the logit of P(factual) of a span; `window` is the size of its sliding
    windows.
    """

    weights: Tensor
    intercept: float
    window: int = 8
    threshold: float = 0.5
    record: Mapping[str, Any] = field(default_factory=dict)
    documents: Documents = field(default_factory=lambda: Documents([]))

    @property
    def id(self) -> str:
        """Changes with everything that changes a score."""
        weights = hashlib.sha256(self.weights.double().contiguous().numpy().tobytes()).hexdigest()
        excluded = [list(sketch) for sketch in self.documents.sketches]
        return fingerprint([weights, self.intercept, self.window, self.threshold, RULE, excluded])

    def logit(self, ratios: Tensor) -> Tensor:
        """[..., L, H] mean lookback ratios -> [...] logits of P(factual).

        Raises:
            InputError: the ratios are those of another number of layers or heads.
        """
        self.require_shape(ratios.shape[-2], ratios.shape[-1])
        return (ratios * self.weights.to(ratios)).sum((-2, -1)) + self.intercept

    def probability(self, ratios: Tensor) -> Tensor:
        """As `logit`, in probabilities."""
        return self.logit(ratios).sigmoid()

    def require_windows(self, field: str = "lens") -> None:
        if not self.window:
            raise InputError(field, "a lens of predefined spans", "a factual rate needs one of sliding windows")

    def require_shape(self, layers: int, heads: int) -> None:
        own = tuple(self.weights.shape)
        if own != (layers, heads):
            allowed = f"the model has {layers} x {heads}; map its heads (`kdray lens map`) or train a lens of its own"
            raise InputError("lens", f"a lens for {own[0]} layers x {own[1]} heads", allowed)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            "weights": self.weights.double().contiguous(),
            "intercept": torch.tensor([self.intercept], dtype=torch.float64),
        }
        for name in (RECORD, KEPT_OUT):  # so that no one finds new weights with an old record, or another lens's test
            io.delete(folder / name)
        io.put(folder / WEIGHTS, save(tensors))
        settings = {"window": self.window, "threshold": self.threshold, "rule": RULE, "id": self.id}
        io.put_json(folder / RECORD, settings | {"record": dict(self.record), "documents": self.documents.sketches})

    @classmethod
    def load(cls, folder: Path) -> Lens:
        """The lens in a folder.

        Raises:
            InputError: there is none, it is damaged or not what was sealed, or its features follow another rule.
        """
        require_intact(folder)
        if not all((folder / name).is_file() for name in (WEIGHTS, RECORD)):
            raise InputError(
                "lens", f"no lens in {folder}", f"a folder with {WEIGHTS} and {RECORD}: `kdray lens train` or `import`"
            )
        try:
            kept, tensors = json.loads((folder / RECORD).read_bytes()), load_file(folder / WEIGHTS)
            if wrong := [name for name, right in _parts_of(kept, tensors).items() if not right]:
                raise ValueError(f"wrong {wrong[0]}")
        except (
            SafetensorError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise InputError("lens", f"{folder} is damaged ({reason})", "train or import it again") from None
        if kept["rule"] != RULE:
            raise InputError("lens", f"features by the rule '{kept['rule']}'", f"'{RULE}'")
        documents = Documents(tuple(sketch) for sketch in kept["documents"])
        return cls(
            tensors["weights"],
            tensors["intercept"].item(),
            kept["window"],
            kept["threshold"],
            kept["record"],
            documents,
        )


def _parts_of(kept: Any, tensors: Mapping[str, Tensor]) -> dict[str, bool]:
    """Whether each part of a kept lens is of the right type and shape; one that is missing raises."""
    weights, intercept, record, documents = tensors["weights"], tensors["intercept"], kept["record"], kept["documents"]
    return {
        "tensors": set(tensors) == {"weights", "intercept"},
        "rule": isinstance(kept["rule"], str),
        "weights": weights.dim() == 2 and weights.numel() > 0 and _is_finite(weights),
        "intercept": intercept.numel() == 1 and _is_finite(intercept),
        "window": type(kept["window"]) is int and kept["window"] >= 0,  # 0: of predefined spans
        "threshold": _is_number(kept["threshold"]) and 0 <= kept["threshold"] <= 1,
        "record": isinstance(record, dict) and (record.get("auroc_test") is None or _is_number(record["auroc_test"])),
        "documents": isinstance(documents, list) and all(map(_is_sketch, documents)),
    }


def _is_finite(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and bool(tensor.double().isfinite().all())


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_sketch(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(known, str) for known in value)


def fit(table: Table, solver: Literal["newton-cg", "newton-cholesky"] = "newton-cg") -> LogisticRegression:
    """scikit-learn's logistic regression as in the thesis, C = 1 on unscaled features, at the minimum of its objective.

    The default solver stops on the way there, where 1e-7 of noise in the features (the rounding of another processor)
    moves the weights by 0.7%, and factual rates by 0.1 to 0.4 points. This one goes on until no component of the
    gradient, of a row's mean loss, is above 1e-10: the same noise then moves a probability by 1e-6. scikit-learn warns
    where it does not get there. `newton-cholesky` arrives there too, with memory for [F, F] numbers, and in seconds
    where features are of sizes as different as those of hidden states.

    Raises:
        InputError: all rows are factual, or none is.
    """
    from sklearn.linear_model import (
        LogisticRegression,
    )  # takes a second to load, which those that only rate by a lens do without

    require_both(table)
    return LogisticRegression(solver=solver, tol=TOLERANCE, max_iter=1000).fit(
        table.features.astype(np.float64), table.factual
    )


def steepness(model: LogisticRegression, table: Table) -> float:
    """The largest component of the gradient of what `fit` minimises, of a row's mean loss; 0 at the minimum."""
    features, weights = table.features.astype(np.float64), np.asarray(model.coef_)[0]
    residuals = model.predict_proba(features)[:, 1] - table.factual
    return float(np.abs([*(features.T @ residuals + weights), residuals.sum()]).max() / len(residuals))


def fit_lens(table: Table, layers: int, window: int, record: Mapping[str, Any]) -> Lens:
    """A lens fitted on all rows of a table of lookback ratios, with the documents that trained it."""
    model = fit(table)
    weights = torch.from_numpy(np.asarray(model.coef_).reshape(layers, -1))
    fitted = {"iterations": int(np.asarray(model.n_iter_)[0]), "steepness": steepness(model, table)}
    record = {**record, "fit": fitted}
    return Lens(
        weights, float(np.asarray(model.intercept_)[0]), window, record=record, documents=Documents(table.documents)
    )


def require_both(table: Table) -> None:
    if len(set(table.factual.tolist())) < 2:
        found = "only factual spans" if table.factual.size and table.factual[0] else "no factual span"
        raise InputError("annotations", found, "a classifier needs factual and hallucinated ones")
