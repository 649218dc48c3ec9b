"""Mean lookback ratios of windows of responses, which `lens` keeps as parts until it is trained on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from kdray.artifacts.files import reading
from kdray.artifacts.parts import all_parts, write_part

NAMES = ("features", "labels", "rows")


def write_windows(folder: Path, index: int, features: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> None:
    """Keep [n, F] features of windows, their labels [n] and the numbers [n] of the responses that they are in."""
    tensors: dict[str, np.ndarray] = dict(zip(NAMES, (features, labels, rows), strict=True))
    write_part(folder, index, ".safetensors", lambda path: save_file(tensors, path))


def read_windows(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The features, labels and responses' numbers of all windows, in the order of the parts.

    Raises:
        InputError: a part is damaged.
    """
    found = []
    for path in all_parts(folder):
        with reading(path, SafetensorError):
            tensors = load_file(path)
            found.append([tensors[name] for name in NAMES])
    features, labels, rows = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return features, labels, rows
