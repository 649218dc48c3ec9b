"""A metric outside of a grid, with its models in kdray's cache; and such a metric as a detector of hallucinations."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdray.lens.annotations import Annotated
from kdray.lens.evaluate import auroc
from kdray.models.load import CACHE, lay_down, own_device
from kdray.score.answers import Answer, Given, Metric, load_metric
from kdray.spec import declare
from kdray.spec.components import component
from kdray.spec.refs import parse_reference
from kdray.spec.sections.base import Use
from kdray.store import Outer, fingerprint, io


def open_metric(use: Use, field: str) -> Metric:
    """A metric as a grid file names it, its parameters bound.

    Raises:
        InputError: there is no usable model behind one of its references.
    """
    weights = component(declare.Metric, use.name, field).declared.models
    models = {name: _folder(use.params[name], f"{field}.{name}", wanted) for name, wanted in weights.items()}
    params = {name: value for name, value in use.params.items() if name not in models}
    return load_metric(use.name, params, Given(models, own_device(), CACHE))


def metric_auroc(rows: Sequence[Annotated], metric: Metric, score: str) -> dict[str, Any]:
    """AUROC in percent of a metric's `score` of predefined spans, asked about each as if it were the answer; and their
    number.

    Spans as in `kdray.lens.spans`: what is hallucinated, the text before and the text after it. Spans without a word,
    or that the metric fails on, are left out, as are responses whose hallucinations are not all found in them.
    """
    known = [row for row in rows if not row.unfound]
    spans = [(row.document, text, factual) for row in known for text, factual in predefined_texts(row) if text]
    found = metric([Answer(text, source=document) for document, text, _ in spans])
    scored = [(factual, values[score]) for (_, _, factual), values in zip(spans, found, strict=True) if score in values]
    return {"AUROC": auroc([factual for factual, _ in scored], [value for _, value in scored]), "spans": len(scored)}


def predefined_texts(row: Annotated) -> list[tuple[str, int]]:
    """The spans of an annotated response as texts, with their labels: 1 factual, 0 hallucinated."""
    if not row.spans:
        return [(row.response.strip(), 1)]
    begin, end = min(span[0] for span in row.spans), max(span[1] for span in row.spans)
    covered = bytearray(len(row.response))
    for start, stop in row.spans:
        covered[start:stop] = b"x" * (stop - start)
    wrong = " ".join(row.response[slice(*found.span())].strip() for found in re.finditer(rb"x+", covered))
    return [(row.response[:begin].strip(), 1), (wrong, 0), (row.response[end:].strip(), 1)]


def _folder(text: str, field: str, weights: bool) -> Path:
    """The model behind a reference as a plain folder: its own, or one in the cache that is made once."""
    ref, outer = parse_reference(text, field), Outer(CACHE)
    if ref.scheme == "file" and not ref.is_gguf:
        return Path(ref.name)
    outer.resolve(ref, field)
    folder = CACHE / "models" / fingerprint([outer.identify(ref, field), ref.is_gguf, weights])
    if not folder.is_dir():
        making = folder.with_name(f"{io.TEMPORARY}{uuid.uuid4().hex}")
        making.mkdir(parents=True)
        lay_down(ref, outer, making, field, weights=weights)
        with contextlib.suppress(OSError):  # another process was faster
            making.rename(folder)
    return folder
