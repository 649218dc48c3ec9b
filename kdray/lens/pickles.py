"""The published Llama-2 classifiers: pickles of scikit-learn 1.5, read without running anything that they name.

Such a file is a dictionary with a LogisticRegression under `clf`. What it names is looked up in a short list: the classifier
becomes an inert object that holds its attributes, an array is rebuilt from its bytes, and anything else is refused.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdray.lens.classifier import Lens
from kdray.spec.errors import InputError
from kdray.store.io import sha256

FAMILY, LAYERS, HEADS = "llama-2-7b", 32, 32
ITEMS = ("i4", "i8", "f8")
LARGEST = 1 << 20  # bytes: the published files have 9 KB


class Classifier:
    """Stands where the file names a LogisticRegression."""


class Array:
    """Stands where the file rebuilds an array: shape, type and bytes, and nothing of objects."""

    def __init__(self, *_: Any) -> None:
        self.values = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        values = np.frombuffer(content, dtype.type).reshape(shape, order="F" if fortran else "C")
        self.values = values.astype(np.float64)


class Type:
    """Stands where the file names a number's type."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in ITEMS:
            raise pickle.UnpicklingError(f"an array of '{code}'")
        self.type = np.dtype(f"<{code}")

    def __setstate__(self, state: Any) -> None:
        if state[1] != "<":
            raise pickle.UnpicklingError(f"byte order '{state[1]}'")


def _array(*_: Any) -> Array:
    return Array()


def _scalar(dtype: Type, content: bytes) -> float:
    return float(np.frombuffer(content, dtype.type)[0])


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("sklearn.linear_model._logistic", "LogisticRegression"): Classifier,
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Type,
}


class Reader(pickle.Unpickler):
    """Knows the five names that a published classifier needs."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return ALLOWED[module, name]


def import_pickle(path: Path) -> Lens:
    """The lens in a published Llama-2-7B classifier.

    Raises:
        InputError: the file is anything else.
    """
    if not path.is_file():
        raise InputError("lens", f"no file {path}", "give a published classifier_*.pkl")
    allowed = "a published Lookback Lens classifier of Llama-2-7B; no other pickle is read"
    try:
        if path.stat().st_size > LARGEST:
            raise pickle.UnpicklingError(f"{path.stat().st_size:,} bytes")
        tree = Reader(io.BytesIO(path.read_bytes())).load()
        classifier, best = tree["clf"], tree.get("best_threshold")
        weights, intercept, classes = (getattr(classifier, name).values for name in ("coef_", "intercept_", "classes_"))
        if weights.shape != (1, LAYERS * HEADS) or intercept.shape != (1,) or classes.tolist() != [0.0, 1.0]:
            raise pickle.UnpicklingError(f"a classifier of shape {weights.shape}")
        if not (np.isfinite(weights).all() and np.isfinite(intercept).all()):
            raise pickle.UnpicklingError("weights that are not finite")
    except Exception as error:  # noqa: BLE001 - a hostile file may raise anything
        raise InputError("lens", f"{path.name} is refused: {type(error).__name__}, {error}", allowed) from None
    record = {"family": FAMILY, "origin": "published", "file": path.name, "sha256": sha256(path), "best_threshold": best}
    window = 8 if "sliding_window_8" in path.name else 0
    return Lens(torch.from_numpy(weights.reshape(LAYERS, HEADS).copy()), float(intercept[0]), window, record=record)
