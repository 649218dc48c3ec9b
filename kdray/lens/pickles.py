"""The published Llama-2 classifiers: pickles of scikit-learn 1.5, read without running anything that they name.

Such a file is a dictionary with a LogisticRegression under `clf`. What it names is looked up in a short list: the
classifier becomes an inert object that holds its attributes, an array is rebuilt from its bytes, and anything else is
refused.
"""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdray.lens.classifier import Lens
from kdray.spec.errors import InputError
from kdray.spec.lens import PUBLISHED_FAMILY, PUBLISHED_SHAPE
from kdray.store.io import sha256

LAYERS, HEADS = PUBLISHED_SHAPE
NAME = re.compile(r"classifier_.+_(predefined_span|sliding_window_(\d+))\.pkl")  # as the authors' scripts write them
AUROC = {  # of the published four on documents kept out, by the file's sha256: from the README beside them
    "3c7a461b5e7b19a0625fe738e5db88fdd29f5de46793cdf9fd7b1360991b287d": 87.2,  # CNN/DailyMail, predefined spans
    "dafc4fda81b765bed4f7030b992a195b6d2bf2dd20ce368756d63a01fd73232c": 84.7,  # CNN/DailyMail, windows of 8
    "29a5198ae3e2d510c35e4f8eb57e13976262d2727a5982763ab94f4b45142e59": 91.4,  # Natural Questions, predefined spans
    "b726c5fa4af4e9e55fab413794a783105d54c06b15a60a60e498373ff0f97bda": 86.6,  # Natural Questions, windows of 8
}
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
    if not (named := NAME.fullmatch(path.name)):
        raise InputError(
            "lens", f"{path.name} is refused: its name does not tell the window", "classifier_*_sliding_window_8.pkl"
        )
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
    record = {
        "family": PUBLISHED_FAMILY,
        "origin": "published",
        "file": path.name,
        "sha256": sha256(path),
        "best_threshold": best,
    }
    record |= {"auroc_test": AUROC.get(record["sha256"])}
    return Lens(
        torch.from_numpy(weights.reshape(LAYERS, HEADS).copy()), float(intercept[0]), int(named[2] or 0), record=record
    )
