"""model: fetch a model into the store, convert it from GGUF, or cut layers out of one that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from kdray.models.cut import cut
from kdray.models.load import lay_down
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import CutInputs
from kdray.spec import declare
from kdray.spec.errors import InputError
from kdray.spec.refs import Reference
from kdray.store import Outer

DECLARED = declare.Stage(version=1)


def model(steps: list[Step], work: Work) -> None:
    """Make the missing ones of `steps`, each in a Ray task so that a worker's memory is used."""
    language = {base.key for base in map(_base, work.plan.models.values())}  # others are metrics'
    with work.progress.bar("models", len(work.missing(steps)), "models") as bar:
        for step, attempt in work.each(steps):
            source = work.folder(step.inputs.model) if isinstance(step.inputs, CutInputs) else None
            task = ray.remote(_make).options(num_cpus=1)
            field = field_at_fault(step, work) if source else "model"
            try:
                ref = step.source and step.source.everywhere
                ray.get(task.remote(ref, source, step.params, work.outer, attempt.path, field, step.key in language))
            except RayTaskError as error:
                raise error.cause if isinstance(error.cause, InputError) else error from None
            work.seal(step, attempt)
            bar.advance()


def _base(step: Step) -> Step:
    """The model as it comes from outside, before layers are cut or it is fine-tuned."""
    whole = step.untuned
    return whole.inputs.model if isinstance(whole.inputs, CutInputs) else whole


def field_at_fault(step: Step, work: Work) -> str:
    """Where the grid file names what is cut."""
    for role, (field, model) in work.plan.grid.models().items():
        made = work.plan.models[role]
        if model.drop_layers and step.key in (made.key, *(needed.key for needed in made.inputs.steps)):
            return f"{field}.drop_layers"
    return "drop_layers"


def _make(
    ref: Reference | None,
    source: Path | None,
    params: dict[str, Any],
    outer: Outer,
    target: Path,
    field: str,
    language: bool,
) -> None:
    if source is None:
        assert ref is not None
        weights, identity = params.get("weights", True), params["source"]
        lay_down(ref, outer, target, ref.field, weights=weights, language=language, identity=identity)
        return
    first, end = params["drop_layers"]
    cut(source, target, first, end, field)
