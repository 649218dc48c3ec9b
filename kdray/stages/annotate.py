"""annotate: the untrained student's own answers with the hallucinated spans that a metric finds, as a file of our own format."""

from __future__ import annotations

from pathlib import Path

import torch

from kdray.lens.sources.jsonl import write_jsonl
from kdray.plan import Step
from kdray.score.annotate import annotate as annotated
from kdray.score.answers import Given, load_metric
from kdray.stages.generate import read_answers
from kdray.stages.pipeline import Item, run_pipeline
from kdray.stages.work import Work

VERSION = 1
ANNOTATED = "annotated.jsonl"


def annotate(steps: list[Step], work: Work) -> None:
    """Make the missing ones of `steps`."""
    with work.claim(steps) as claimed:
        if not claimed:
            return
        by_id = {step.key.id: (step, attempt) for step, attempt in claimed}
        groups = [[_item(step, work) | {"target": str(attempt.path)}] for step, attempt in claimed]
        with work.progress.bar("annotate", len(groups), "sets of answers") as bar:
            for key, error in run_pipeline(groups, Annotator, work.resources):
                step, attempt = by_id[key]
                if error:
                    work.fail(step, error)
                else:
                    work.seal(step, attempt, [attempt.path / ANNOTATED])
                bar.advance()


class Annotator:
    """Annotates the answers of one step."""

    def __call__(self, item: Item) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        given = Given({name: Path(folder) for name, folder in item["models"].items()}, device, Path(item["cache"]))
        metric = load_metric(item["metric"], item["params"], given)
        rows = annotated(read_answers(Path(item["outputs"])), metric, item["metric"], item["threshold"])
        write_jsonl(rows, Path(item["target"]) / ANNOTATED)


def _item(step: Step, work: Work) -> Item:
    """What the metric needs; the parameters that change no number come from the grid as it is now."""
    own = work.plan.grid.lens and work.plan.grid.lens.own
    assert own
    name = own.metric.name
    models = {key.partition(".")[2]: str(work.folder(made)) for key, made in step.inputs.items() if key.startswith(f"{name}.")}
    return {
        "key": step.key.id,
        "metric": name,
        "params": {key: value for key, value in own.metric.params.items() if key not in models} | step.params["metric"]["params"],
        "models": models,
        "threshold": step.params["threshold"],
        "outputs": str(work.folder(step.inputs["outputs"])),
        "cache": str(work.store.root / "cache"),
    }
