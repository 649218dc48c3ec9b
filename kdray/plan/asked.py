"""What a task asks of a model: what its answers, its scores and the answers to learn from share in their steps."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from kdray.plan.identity import ONLINE, named, payload
from kdray.plan.inputs import PrepareInputs, RetokeniseInputs, Softened
from kdray.plan.steps import Plan, Step
from kdray.spec import declare
from kdray.spec.components import asks_grids_rows, component, declared
from kdray.spec.grid import Grid
from kdray.spec.refs import Reference, parse_reference
from kdray.spec.sections.base import Use
from kdray.store import Outer


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a task asks of any model: the parameters of its steps, what they read beside the model, and where its data
    are.
    """

    params: dict[str, Any] | None
    data: Step[PrepareInputs | RetokeniseInputs] | None
    taught: Softened
    source: Reference | None
    files: Mapping[str, Reference]


def asked_of(plan: Plan, task: Use, field: str, outer: Outer) -> Asked:
    """What `task` asks, which the grid file names at `field`; without parameters until all that it reads is resolved.

    Raises:
        InputError: a local file that it names does not exist.
    """
    declares, scoring = component(declare.Task, task.name, field).declared, plan.grid.score
    data = plan.prepare if asks_grids_rows(declares) else None
    taught = plan.heldout_labels if isinstance(declares, declare.HeldoutTask) else Softened()
    source = task.params.get("source")
    ref = parse_reference(source, f"{field}.source") if source is not None else None
    identity = outer.identify(ref, f"{field}.source") if ref else {}
    shown = task.params.get("shots_source")
    files = {"shots_source": parse_reference(shown, f"{field}.shots_source")} if shown is not None else {}
    contents = {name: outer.identify(file, f"{field}.{name}") for name, file in files.items()}
    if identity is None or None in contents.values():
        return Asked(None, data, taught, ref, files)
    settings = {key: value for key, value in task.params.items() if key not in ("source", "shots_source")}
    described = named(declare.Task, task.name, settings) | {"source": dict(identity)} | contents
    params: dict[str, Any] = {"task": described} | payload(scoring, "dtype", "batch")
    if taught.teacher:
        params |= {"soft_labels": payload(plan.grid.soft_labels, *ONLINE)}
    if isinstance(declares, declare.ChoiceTask):  # lm-eval's task files and code do the scoring
        params |= payload(scoring, "likelihood") | {"lm_eval": importlib.metadata.version("lm_eval")}
    if _asks_by_template(plan.grid, task):
        params |= payload(plan.grid.data, "template")
    if isinstance(declares, declare.AnswerTask):
        params |= payload(scoring, "engine")
    return Asked(params, data, taught, ref, files)


def decoding_of(use: Use, contents: Mapping[str, Any]) -> str | dict[str, Any]:
    """A decoding as it enters ids, files by their content; one that has nothing to set, such as greedy, by its name
    alone.
    """
    described = named(declare.Decoding, use.name, {**use.params, **contents})
    return use.name if described == {"name": use.name, "version": 1, "params": {}} else described


def _asks_by_template(grid: Grid, task: Use) -> bool:
    """Whether a task's prompts depend on the grid's template, or where they are the model's own chat on what that is
    given.
    """
    asked = declared(declare.Task, task.name)
    own_chat = task.params.get("prompt") == "chat" or task.params.get("chat_template", False)
    if own_chat:
        return grid.data.template.name == "chat" and bool(payload(grid.data, "template")["template"]["params"])
    return (
        isinstance(asked, declare.AnswerTask) and not asked.rows and task.params.get("prompt", "template") == "template"
    )
