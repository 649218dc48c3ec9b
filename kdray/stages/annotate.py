"""annotate: the untrained student's own answers with the hallucinated spans that a metric finds, as a file of our own
format.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from kdray.artifacts.annotated import read_annotated_parts, write_annotated, write_annotated_part
from kdray.artifacts.answers import read_answers
from kdray.lens.sources.jsonl import write_jsonl
from kdray.models.load import load_tokenizer, own_device
from kdray.orchestration.items import Part
from kdray.orchestration.pipeline import make_parts
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import AnnotateInputs
from kdray.score.annotate import annotate as annotated
from kdray.score.answers import Given, load_metric
from kdray.score.kept import read_kept
from kdray.spec import declare
from kdray.store import Attempt

DECLARED = declare.Stage(version=3)
BATCH = 16


def annotate(steps: list[Step[AnnotateInputs]], work: Work) -> None:
    """Make the missing ones of `steps`."""
    for step, attempt in work.each(steps):
        _make(step, attempt, work)


class Annotator:
    """Annotates some of the answers of one step."""

    def __init__(
        self,
        outputs: Path,
        student: Path,
        metric: str,
        params: dict[str, Any],
        models: dict[str, Path],
        cache: Path,
        threshold: float,
    ) -> None:
        self.find = load_metric(metric, params, Given(models, own_device(), cache))
        self.answers = read_kept(outputs, functools.partial(load_tokenizer, student))
        self.metric, self.threshold = metric, threshold

    def __call__(self, item: Part) -> None:
        rows, failed = annotated([self.answers[i] for i in item.rows], self.find, self.metric, self.threshold)
        write_annotated_part(item.target, item.index, functools.partial(write_jsonl, rows), failed.values())


def _make(step: Step[AnnotateInputs], attempt: Attempt, work: Work) -> None:
    own = work.plan.grid.lens and work.plan.grid.lens.own
    assert own
    outputs, name = work.folder(step.inputs.outputs), own.metric.name
    models = {parameter: work.folder(made) for parameter, made in step.inputs.models.by_parameter.items()}
    # the parameters that change no number come from the grid as it is now
    params = {key: value for key, value in own.metric.params.items() if key not in models} | step.params["metric"][
        "params"
    ]
    student = work.folder(step.inputs.outputs.inputs.model)
    make = functools.partial(
        Annotator, outputs, student, name, params, models, work.store.root / "cache", step.params["threshold"]
    )
    count = len(read_answers(outputs))
    cuts = [range(i, min(i + BATCH, count)) for i in range(0, count, BATCH)]
    if error := make_parts("annotate", cuts, attempt, make, work):
        work.fail(step, error)
        return
    lines, failed = read_annotated_parts(attempt.path)
    if failed and not lines:
        work.fail(step, f"no answer could be annotated: {failed[0]}")
        return
    if failed:
        work.progress.say(
            f"annotate: {len(failed)} of {count} answers could not be annotated, the first one: {failed[0]}"
        )
    write_annotated(attempt.path, lines)
    work.seal(step, attempt, None, failed=len(failed))
