"""Open the models of metrics once before anything is trained: weights that do not fit are not found out after days of
it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from kdray.models.weights import reading
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import AnnotateInputs, AnswersInputs
from kdray.score.answers import Given, load_metric
from kdray.spec.errors import InputError

OWN = "lens.own.metric"  # the field of the metric whose annotations a step `annotate` keeps


def probe(steps: Iterable[Step[AnswersInputs | AnnotateInputs]], work: Work) -> None:
    """Open every metric with models that a missing one of `steps` needs, each in a Ray task.

    Raises:
        InputError: one cannot be opened.
    """
    opened = set()
    for step in work.missing(steps):
        models = step.inputs.models.by_parameter if step.inputs.models else {}
        if not models:
            continue
        [metric] = step.params["metrics"] if isinstance(step.inputs, AnswersInputs) else [step.params["metric"]]
        name, params = metric["name"], metric["params"]
        mark = json.dumps([name, params, {parameter: made.id for parameter, made in models.items()}], sort_keys=True)
        if mark in opened:
            continue
        opened.add(mark)
        folders = {parameter: work.folder(made) for parameter, made in models.items()}
        called = {str(folders[parameter]): str(made.source) for parameter, made in models.items()}
        field = OWN if isinstance(step.inputs, AnnotateInputs) else f"score.metrics.{name}"
        try:
            ray.get(ray.remote(open_metric).options(num_cpus=1).remote(name, params, folders, called, field))
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, InputError) else error from None


def open_metric(
    name: str, params: Mapping[str, Any], models: Mapping[str, Path], called: Mapping[str, str], field: str
) -> None:
    """Open the metric in this `field` of a grid with `models` by parameter; `called` has the references behind their
    folders.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        with reading(" and ".join(called.values()), field, f"give the models that {name} scores with"):
            load_metric(name, params, Given(models, "meta"))  # where its weights take no memory
    except InputError as error:
        found = error.found
        for folder, reference in called.items():  # a folder in the store says nothing to who wrote the grid
            found = found.replace(folder, reference)
        raise InputError(error.field.replace(f"score.metrics.{name}", field), found, error.allowed) from None
