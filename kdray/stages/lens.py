"""lens: a Lookback Lens from annotated responses, read by the untrained student; or one that is there already, tested
by them.

Batches of responses go through a Ray Data pipeline, which leaves the mean lookback ratios of their windows; the driver
trains the lens on them as `kdray.lens.training` says, and so as `kdray lens train` does. What is kept out of its
training tests it for its own model here, and for every checkpoint that it measures.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from transformers import PreTrainedTokenizerBase

from kdray.artifacts import windows as kept
from kdray.artifacts.annotated import read_annotated
from kdray.artifacts.lens import ALIGNED, KEPT_OUT
from kdray.artifacts.parts import parts
from kdray.data.templates import open_template
from kdray.lens.align import Aligned, read_aligned, write_aligned
from kdray.lens.annotations import Annotated
from kdray.lens.classifier import Lens
from kdray.lens.pickles import import_pickle
from kdray.lens.responses import align_all, read_responses
from kdray.lens.sources.jsonl import jsonl
from kdray.lens.training import (
    Windows,
    cuts,
    examined,
    joined,
    keep,
    kept_beside,
    numbers_of,
    read_windows,
    summary,
    train_lens,
)
from kdray.models.load import load_placed, load_tokenizer
from kdray.orchestration.items import Part
from kdray.orchestration.pipeline import make_parts
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import LensInputs
from kdray.spec import declare
from kdray.spec.errors import InputError
from kdray.spec.folders import read_config, window_of
from kdray.spec.lens import PICKLED
from kdray.store import Attempt

DECLARED = declare.Stage(version=1)


def lens(steps: list[Step[LensInputs]], work: Work) -> None:
    """Make the missing ones of `steps`."""
    for step, attempt in work.each(steps):
        try:
            make_lens(step, attempt, work)
        except InputError as error:  # such annotations train no lens; what needs none goes on
            work.fail(step, str(error))


def read_annotations(step: Step[LensInputs], work: Work) -> list[Annotated]:
    """The annotated responses that a lens is made of.

    Raises:
        InputError: the file is not what it should be.
    """
    if step.inputs.annotated:
        return read_annotated(work.folder(step.inputs.annotated), jsonl)
    assert step.source is not None
    file = work.outer.local_file(step.source, step.source.field)
    rows = read_responses(step.params["annotations"]["name"], file, step.params["limit"])
    work.outer.require_unchanged(step.source, step.params["source"], step.source.field)
    return rows


class Watcher:
    """Keeps the mean lookback ratios of one batch's windows."""

    def __init__(self, model: Path, dtype: str, aligned: Path, window: int) -> None:
        self.model, _ = load_placed(model, getattr(torch, dtype))
        self.rows, self.window = read_aligned(aligned), window

    def __call__(self, item: Part) -> None:
        read = read_windows(self.model, self.rows, item.rows, self.window)
        kept.write_windows(item.target, item.index, read.features, read.factual, read.rows)


def make_lens(step: Step[LensInputs], attempt: Attempt, work: Work) -> None:
    """Train the lens of a step, or judge the one that is given, on its annotated answers, and seal it."""
    params, model = step.params, work.folder(step.inputs.model)
    config, tokenizer = read_config(model), load_tokenizer(model)
    given = given_lens(step, work) if "trained" in step.files else None
    if step.source or step.inputs.annotated:
        rows, counts = _annotated_rows(step, model, tokenizer, work)
    else:  # a lens that is there already: what was kept out of its training may lie beside it
        assert given
        rows = kept_beside(given, _given_path(step, work), tokenizer, window_of(model))
        counts = {"examples": len(rows)}
    window = given.window if given else params["window"]
    if error := _watch(rows, window, step, attempt, work):
        work.fail(step, error)
        return
    read = [Windows(*kept.read_windows(attempt.path))] if rows else []
    table = joined(read, rows, config["num_hidden_layers"] * config["num_attention_heads"])
    if given:
        counts |= {"auroc_before": given.record.get("auroc_test"), "documents_known": bool(given.documents.sketches)}
        made = examined(given, table)
    else:
        own = step.inputs.annotated
        learned_from = own.params if own else {key: params[key] for key in ("annotations", "source")}
        origin = {"family": work.plan.grid.family, **learned_from, **counts}
        made = train_lens(table, config["num_hidden_layers"], window, origin)
    keep(made, rows, tokenizer, attempt.path)
    for path in [attempt.path / ALIGNED, *parts(attempt.path).values()]:
        path.unlink()
    work.seal(step, attempt, None, **counts, **numbers_of(made))
    work.progress.say(f"lens: {summary(made)}")


def _watch(rows: list[Aligned], window: int, step: Step[LensInputs], attempt: Attempt, work: Work) -> str | None:
    """Leave the lookback ratios of all windows in the attempt's parts, long passages first; returns why that failed,
    None if not.
    """
    write_aligned(rows, attempt.path / ALIGNED)
    model, dtype = step.inputs.model, step.params["dtype"]
    make = functools.partial(Watcher, work.folder(model), dtype, attempt.path / ALIGNED, window)
    return make_parts("lens", cuts(rows), attempt, make, work, work.gpus_for(model, dtype))


def given_lens(step: Step[LensInputs], work: Work) -> Lens:
    """The lens that is there already, fetched if need be.

    Raises:
        InputError: there is none, it or what lies beside it is damaged, or it rates no sliding windows.
    """
    path = _given_path(step, work)
    lens = import_pickle(path) if path.suffix == PICKLED else Lens.load(path)
    lens.require_windows("lens.trained")
    if (path / KEPT_OUT).is_file():
        read_aligned(path / KEPT_OUT)
    work.outer.require_unchanged(step.files["trained"], step.params["trained"], "lens.trained")
    return lens


def _given_path(step: Step[LensInputs], work: Work) -> Path:
    return work.outer.local_file(step.files["trained"], "lens.trained")


def _annotated_rows(
    step: Step[LensInputs], model: Path, tokenizer: PreTrainedTokenizerBase, work: Work
) -> tuple[list[Aligned], dict[str, Any]]:
    """The annotated responses as tokens, with their numbers."""
    annotated, params = read_annotations(step, work), step.params
    make_prompt = None  # own answers bring their ids along
    if "template" in params:
        make_prompt = open_template(params["template"])

    def tell(text: str) -> None:
        work.progress.say(f"lens: {escape(text)}")

    return align_all(annotated, tokenizer, make_prompt, params.get("max_words"), window_of(model), tell)
