"""One form of soft labels a file: what of a teacher's outputs is kept per token, and how it is read back.

A stored form has `keep`, from the teacher's hidden states to named tensors of one row a token, and `labels`, back
to what the objective reads; `distill.stored` puts the tensors on disk. One that declares nothing `kept` has `open`
instead, and asks the teacher at every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kdray.artifacts.rows import Rows
from kdray.artifacts.source import LabelSource
from kdray.distill.across import Across
from kdray.distill.ensemble import Ensemble
from kdray.distill.labels import Signal
from kdray.distill.stored import Stored
from kdray.spec import declare
from kdray.spec.components import declared, load


def make_form(form: Mapping[str, Any]) -> Any:
    """An instance of the form `{name, params}`."""
    return load(declare.Form, form["name"])(**form["params"])


def open_signal(
    sources: Sequence[LabelSource], rows: Rows, device: torch.device | str, dtype: torch.dtype
) -> Signal | Across | None:
    """The soft labels of `rows`, from more than one source for an ensemble of teachers.

    A teacher's head, where its form needs one, computes in `dtype`.
    """
    signals = [
        _open(source, Rows(Path(source.across.folder)) if source.across else rows, device, dtype) for source in sources
    ]
    if len(signals) > 1:
        return Ensemble(signals, [source.weight for source in sources])
    if sources and (how := sources[0].across):
        return Across(signals[0], rows, Rows(Path(how.folder)), how, device)
    return signals[0] if signals else None


def _open(source: LabelSource, rows: Rows, device: torch.device | str, dtype: torch.dtype) -> Signal:
    folder, form = Path(source.folder), make_form(source.form)
    if not declared(declare.Form, source.form["name"]).kept:
        more = {"quantise": source.quantise} if source.quantise else {}  # which a form of another package may not know
        return form.open(folder, rows, device, getattr(torch, source.compute), dtype, **more)
    return Stored(folder, form, source.temperature, device, dtype)
