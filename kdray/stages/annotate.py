"""annotate: the untrained student's own answers with the hallucinated spans that a metric finds, as a file of our own format."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from kdray.artifacts.parts import parts, write_part
from kdray.lens.sources.jsonl import write_jsonl
from kdray.models.load import load_tokenizer, own_device
from kdray.orchestration.items import Part
from kdray.orchestration.pipeline import make_parts
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import AnnotateInputs
from kdray.score.annotate import annotate as annotated
from kdray.score.answers import Given, load_metric
from kdray.spec import declare
from kdray.stages.generate import read_answers
from kdray.store import Attempt

DECLARED = declare.Stage(version=2)
ANNOTATED, BATCH = "annotated.jsonl", 16
FAILED = "failed"  # of a line that stands for an answer which could not be annotated: why


def annotate(steps: list[Step[AnnotateInputs]], work: Work) -> None:
    """Make the missing ones of `steps`."""
    for step, attempt in work.each(steps):
        _make(step, attempt, work)


class Annotator:
    """Annotates some of the answers of one step."""

    def __init__(
        self, outputs: Path, student: Path, metric: str, params: dict[str, Any], models: dict[str, Path], cache: Path, threshold: float
    ) -> None:
        self.find = load_metric(metric, params, Given(models, own_device(), cache))
        self.answers = read_answers(outputs, functools.partial(load_tokenizer, student))
        self.metric, self.threshold = metric, threshold

    def __call__(self, item: Part) -> None:
        rows, failed = annotated([self.answers[i] for i in item.rows], self.find, self.metric, self.threshold)

        def write(path: Path) -> None:
            write_jsonl(rows, path)
            with path.open("a") as file:
                file.writelines(json.dumps({FAILED: reason}) + "\n" for reason in failed.values())

        write_part(item.target, item.index, ".jsonl", write)


def _make(step: Step[AnnotateInputs], attempt: Attempt, work: Work) -> None:
    own = work.plan.grid.lens and work.plan.grid.lens.own
    assert own
    outputs, name = work.folder(step.inputs.outputs), own.metric.name
    models = {parameter: work.folder(made) for parameter, made in step.inputs.models.by_parameter.items()}
    # the parameters that change no number come from the grid as it is now
    params = {key: value for key, value in own.metric.params.items() if key not in models} | step.params["metric"]["params"]
    student = work.folder(step.inputs.outputs.inputs.model)
    make = functools.partial(Annotator, outputs, student, name, params, models, work.store.root / "cache", step.params["threshold"])
    count = len(read_answers(outputs))
    cuts = [range(i, min(i + BATCH, count)) for i in range(0, count, BATCH)]
    if error := make_parts("annotate", cuts, attempt, make, work):
        work.fail(step, error)
        return
    made = parts(attempt.path)
    rows = [json.loads(line) for i in sorted(made) for line in made[i].read_text().splitlines()]
    failed = [row[FAILED] for row in rows if FAILED in row]
    if failed and len(failed) == len(rows):
        work.fail(step, f"no answer could be annotated: {failed[0]}")
        return
    if failed:
        work.progress.say(f"annotate: {len(failed)} of {count} answers could not be annotated, the first one: {failed[0]}")
    (attempt.path / ANNOTATED).write_text("".join(json.dumps(row) + "\n" for row in rows if FAILED not in row))
    for path in made.values():
        path.unlink()
    work.seal(step, attempt, None, failed=len(failed))
