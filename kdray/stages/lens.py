"""lens: a Lookback Lens from annotated responses, read by the untrained student; or one that is there already, tested by them.

Batches of responses go through a Ray Data pipeline, which leaves the mean lookback ratios of their windows; the driver trains
scikit-learn's classifier on them. Every fifth document is kept out: on it the lens is tested, for its own model here and for
every checkpoint that it measures.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdray.artifacts.annotated import read_annotated
from kdray.artifacts.lens import ALIGNED, KEPT_OUT
from kdray.artifacts.parts import parts
from kdray.artifacts.windows import read_windows, write_windows
from kdray.data.templates import open_template
from kdray.lens.align import Aligned, align, read_aligned, write_aligned
from kdray.lens.annotations import Annotated, statistics
from kdray.lens.classifier import Lens, train_lens
from kdray.lens.evaluate import auroc, numbered, rows_of
from kdray.lens.features import LOOKBACK, Table, make_tables
from kdray.lens.pickles import import_pickle
from kdray.lens.sources.jsonl import jsonl
from kdray.models.load import load_placed, load_tokenizer
from kdray.orchestration.items import Part
from kdray.orchestration.pipeline import make_parts
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import LensInputs
from kdray.spec import declare
from kdray.spec.components import load
from kdray.spec.errors import InputError
from kdray.spec.folders import read_config, window_of
from kdray.spec.lens import PICKLED
from kdray.store import Attempt

DECLARED = declare.Stage(version=1)
BATCH, FIFTH = 8, 5


def lens(steps: list[Step[LensInputs]], work: Work) -> None:
    """Make the missing ones of `steps`."""
    for step, attempt in work.each(steps):
        try:
            _make(step, attempt, work)
        except InputError as error:  # such annotations train no lens; what needs none goes on
            work.fail(step, str(error))


def read_annotations(step: Step[LensInputs], work: Work) -> list[Annotated]:
    """The annotated responses that a lens is made of.

    Raises:
        InputError: the file is not what it should be.
    """
    if step.inputs.annotated:
        return read_annotated(work.folder(step.inputs.annotated), jsonl)
    name = step.params["annotations"]["name"]
    assert step.source is not None
    read = load(declare.Annotations, name)
    rows = list(read(work.outer.local_file(step.source, step.source.field)))
    work.outer.require_unchanged(step.source, step.params["source"], step.source.field)
    return rows[: step.params["limit"]]


class Watcher:
    """Keeps the mean lookback ratios of one batch's windows."""

    def __init__(self, model: Path, dtype: str, aligned: Path, window: int) -> None:
        self.model, _ = load_placed(model, getattr(torch, dtype))
        self.rows, self.window = read_aligned(aligned), window

    def __call__(self, item: Part) -> None:
        rows = [dataclasses.replace(self.rows[i], document=(str(i),)) for i in item.rows]
        table = make_tables(self.model, rows, [self.window])[LOOKBACK, self.window]
        numbers = np.array([int(number) for (number,) in table.documents])
        write_windows(item.target, item.index, table.features, table.labels, numbers)


def _make(step: Step[LensInputs], attempt: Attempt, work: Work) -> None:
    params, model = step.params, work.folder(step.inputs.model)
    config = read_config(model)
    given = given_lens(step, work) if "trained" in step.files else None
    rows, counts = _annotated_rows(step, model, work)
    if error := _watch(rows, given.window if given else params["window"], step, attempt, work):
        work.fail(step, error)
        return
    table = _joined(attempt.path, rows, config["num_hidden_layers"] * config["num_attention_heads"])
    if given:
        made = given
        counts |= {"auroc_before": given.record.get("auroc_test"), "documents_known": bool(given.documents.sketches)}
        outside = rows_of(table, np.array([document not in given.documents for document in table.documents], dtype=bool))
    else:
        fold = numbered(table.documents, FIFTH)
        inside, outside = rows_of(table, fold != 0), rows_of(table, fold == 0)
        counts |= {"windows": len(inside.labels)}
        own = step.inputs.annotated
        learned_from = own.params if own else {key: params[key] for key in ("annotations", "source")}
        record = {"family": work.plan.grid.family, **learned_from, **counts}
        made = train_lens(inside, config["num_hidden_layers"], params["window"], record)
    tested = auroc(outside.labels, outside.features @ made.weights.flatten().numpy() + made.intercept)
    known = None if np.isnan(tested) else tested
    dataclasses.replace(made, record={**made.record, "auroc_test": known}).save(attempt.path)
    kept_out = set(outside.documents)
    write_aligned([row for row in rows if row.document in kept_out], attempt.path / KEPT_OUT)
    for path in [attempt.path / ALIGNED, *parts(attempt.path).values()]:
        path.unlink()
    work.seal(step, attempt, None, auroc_test=known, **counts)
    trained_on = f"trained before, {made.id}" if given else f"trained on {counts['windows']} windows"
    found = "not tested" if known is None else f"AUROC {known:.1f} on {len(outside.labels)} windows of documents that did not train it"
    work.progress.say(f"lens: {trained_on}; {found}")


def _watch(rows: list[Aligned], window: int, step: Step[LensInputs], attempt: Attempt, work: Work) -> str | None:
    """Leave the lookback ratios of all windows in the attempt's parts, long passages first; returns why that failed, None if not."""
    write_aligned(rows, attempt.path / ALIGNED)
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i].passage.input_ids), i))
    cuts = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    model, dtype = step.inputs.model, step.params["dtype"]
    make = functools.partial(Watcher, work.folder(model), dtype, attempt.path / ALIGNED, window)
    return make_parts("lens", cuts, attempt, make, work, work.gpus_for(model, dtype))


def given_lens(step: Step[LensInputs], work: Work) -> Lens:
    """The lens that is there already, fetched if need be.

    Raises:
        InputError: there is none, or it rates no sliding windows.
    """
    path = work.outer.local_file(step.files["trained"], "lens.trained")
    lens = import_pickle(path) if path.suffix == PICKLED else Lens.load(path)
    if not lens.window:
        raise InputError("lens.trained", "a lens of predefined spans", "a factual rate needs one of sliding windows")
    return lens


def _annotated_rows(step: Step[LensInputs], model: Path, work: Work) -> tuple[list[Aligned], dict[str, Any]]:
    """The annotated responses as tokens, with their numbers; nothing for a lens that is there already and is not tested."""
    if not step.source and not step.inputs.annotated:
        return [], {}
    annotated, params = read_annotations(step, work), step.params
    make_prompt = None  # own answers bring their ids along
    if "template" in params:
        make_prompt = open_template(params["template"])
    rows, problems = align(annotated, load_tokenizer(model), make_prompt, params.get("max_words"), window_of(model))
    for problem in problems[:3]:
        work.progress.say(f"lens: '{problem.id}' is left out: {problem.reason}")
    if not rows:
        raise InputError("lens", f"none of {len(annotated)} responses can be used", "see the reasons above")
    return rows, {**statistics(annotated), "left_out": len(problems)}


def _joined(folder: Path, rows: list[Aligned], width: int) -> Table:
    """All parts as one table of `width` features, its rows by response, whatever batch they were in."""
    if not rows:
        return Table(np.empty((0, width)), np.empty(0), [])
    features, labels, numbers = read_windows(folder)
    order = np.argsort(numbers, kind="stable")
    return Table(features[order], labels[order], [rows[i].document for i in numbers[order]])
