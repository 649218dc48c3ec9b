"""One form of soft labels a file: what of a teacher's outputs is kept per token, and how it is read back.

A stored form has `keep`, from the teacher's hidden states to named tensors of one row a token, and `labels`, back
to what the objective reads; `distill.stored` puts the tensors on disk. `online` keeps nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from kdray.data.rows import Rows
from kdray.distill.labels import Signal
from kdray.distill.stored import Stored


def make_form(form: Mapping[str, Any]) -> Any:
    """An instance of the form `{name, params}`."""
    name = form["name"]
    return getattr(importlib.import_module(f"kdray.distill.signals.{name}"), name)(**form["params"])


def open_signal(
    folder: str,
    form: Mapping[str, Any],
    compute: str,
    temperature: float,
    *,
    rows: Rows,
    device: torch.device | str,
    dtype: torch.dtype,
) -> Signal:
    """The soft labels of `rows`; the first four arguments are the fields of a `LabelSource`.

    The teacher's head, where the form needs one, computes in `dtype`.
    """
    if form["name"] == "online":
        return make_form(form).open(Path(folder), rows, device, getattr(torch, compute), dtype)
    return Stored(Path(folder), make_form(form), temperature, device, dtype)
