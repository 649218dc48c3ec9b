"""How far training steps are, by what their attempts have written: a point's steps, its newest held-out loss, what is
left, where it runs, and why it ended.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kdray.artifacts.curve import newest_steps, read_attempt, read_peak, read_shares, read_times
from kdray.artifacts.notes import ended_early, read_start, stopped_at
from kdray.plan.inputs import TrainInputs
from kdray.plan.steps import Plan, PointPlan, Step
from kdray.spec.errors import InputError, did_you_mean
from kdray.store import Control, Store
from kdray.store.artifact import attempts

PACE = 20  # steps by which it is told how long the others will take
State = Literal["done", "running", "stopping", "waiting", "stopped", "stopped early", "failed", "missing", "unresolved"]


@dataclass(frozen=True)
class TrainingStatus:
    """One training step. `waiting`: a run has it in hand, and it has not begun; `stopping`: it was asked to stop;
    `stopped early`: by a search.

    `step` are the optimiser steps that its newest attempt has done of `total`, which is unknown before it begins where
    the length is in epochs; `left` are seconds, by its last steps; `why` is why it ended early; `gpu_gib` is the peak
    of memory on its first worker's GPU. Where the student samples, `shares` of its newest attempt's time went into
    `sampling`, the `teacher` and the `rest`, and `sampled_length` is the mean of its responses so far, in tokens.
    """

    slug: str
    id: str | None
    state: State
    step: int = 0
    total: int | None = None
    heldout_ce: float | None = None
    left: float | None = None
    node: str | None = None
    device: str | None = None
    why: str | None = None
    gpu_gib: float | None = None
    shares: Mapping[str, float] | None = None
    sampled_length: float | None = None


def training_status(step: Step[TrainInputs], store: Store) -> TrainingStatus:
    """How far a training step is.

    Raises:
        InputError: a file of its newest attempt is damaged.
    """
    if step.id is None:
        return TrainingStatus(step.slug, None, "unresolved")
    try:
        return _status(step, step.id, store)
    except (InputError, FileNotFoundError):
        if not store.get(step.key):
            raise
        return _status(step, step.id, store)  # sealed, and its leftovers removed, while we read


def begun_attempt(step: Step, store: Store) -> Path | None:
    """The folder of the attempt at a step that was finished or, of those that have begun, of the newest."""
    if made := store.get(step.key):
        return made.path
    return next((attempt for attempt in reversed(attempts(store.folder(step.key))) if read_start(attempt)), None)


def find_points(plan: Plan, names: Sequence[str]) -> list[PointPlan]:
    """As `find_point` of several, each once, all with ids.

    Raises:
        InputError: as there, or the grid's references are not resolved yet.
    """
    found = {point.train.mark: point for point in (find_point(plan, name) for name in names)}
    if unresolved := [point for point in found.values() if point.train.id is None]:
        raise InputError(
            "POINT", f"{unresolved[0].train.slug} has no id before its references are resolved", "run the grid first"
        )
    return list(found.values())


def find_point(plan: Plan, name: str) -> PointPlan:
    """The point of this slug or id, or the only one that begins so.

    Raises:
        InputError: there is none, or there are several.
    """
    by_name = {known: point for point in plan.points for known in (point.train.slug, point.train.id) if known}
    if name in by_name:
        return by_name[name]
    alike = {point.train.slug: point for known, point in by_name.items() if name and known.startswith(name)}
    if len(alike) > 1:
        raise InputError("POINT", f"'{name}' begins {len(alike)} points", f"say more: {', '.join(sorted(alike))}")
    if not alike:
        raise InputError("POINT", f"no point '{name}'", did_you_mean(name, [point.train.slug for point in plan.points]))
    return next(iter(alike.values()))


def _status(step: Step[TrainInputs], id: str, store: Store) -> TrainingStatus:
    total = int(step.params["length"]) if step.params["unit"] == "steps" else None
    if made := store.get(step.key):
        last, held, peak, sampling = _sealed_steps(made.path, samples="sampling" in step.params)
        known = TrainingStatus(step.slug, id, "done", gpu_gib=peak, **sampling)
        return _shown(known, last, held, made.facts, total)
    tried = attempts(store.folder(step.key))
    newest, begun = tried[-1] if tried else None, begun_attempt(step, store)
    state = _state(step, store, newest, begun=begun is not None and newest == begun)
    reasons = filter(None, (newest and why_ended(newest), Control(store.root).early(id)))
    why, peak = ": ".join(reasons) or None, begun and read_peak(begun)
    shown = TrainingStatus(step.slug, id, state, why=why, gpu_gib=peak)
    if begun is None:
        return replace(shown, total=total)
    last, held = newest_steps(begun)
    shown = replace(shown, **(_sampling(begun) if "sampling" in step.params else {}))
    shown = _shown(shown, last, held, read_start(begun), total)
    pace = [*read_times(begun).values()][-PACE:]
    if shown.state == "running" and pace and shown.total is not None:
        return replace(shown, left=(shown.total - shown.step) * statistics.fmean(pace))
    return shown


@functools.cache
def _sealed_steps(
    folder: Path, *, samples: bool
) -> tuple[dict[str, float], dict[str, float], float | None, dict[str, Any]]:
    """Of what changes no more: read once, as a watch looks at hundreds of points every other second."""
    return *newest_steps(folder), read_peak(folder), _sampling(folder) if samples else {}


def _sampling(folder: Path) -> dict[str, Any]:
    """What an attempt says of the responses that its student samples."""
    lengths = [entry["sampled_length"] for entry in read_attempt(folder) if "sampled_length" in entry]
    mean = statistics.fmean(lengths) if lengths else None
    return {"shares": read_shares(folder) or None, "sampled_length": mean}


def _shown(
    known: TrainingStatus,
    last: Mapping[str, float],
    held: Mapping[str, float],
    facts: Mapping[str, Any],
    total: int | None,
) -> TrainingStatus:
    """What is known of a step, with what its curve and its first worker say."""
    return replace(
        known,
        step=int(last.get("step", 0)),
        total=facts.get("steps", total),
        heldout_ce=held.get("heldout_ce"),
        node=facts.get("node"),
        device=facts.get("device"),
    )


def why_ended(attempt: Path) -> str | None:
    """Why an attempt ended early, if it said so."""
    if reason := ended_early(attempt):
        return reason
    step = stopped_at(attempt)
    return None if step is None else f"stopped at step {step}" if step else "stopped before it began"


def _state(step: Step, store: Store, newest: Path | None, *, begun: bool) -> State:
    """Of an unfinished step with this newest attempt, and whether that has begun."""
    at_work = store.state(step.key) == "running"
    ended = newest is not None and why_ended(newest) is not None
    control = Control(store.root)
    if control.is_stopped(step.key.id):
        if at_work and begun and not ended:
            return "stopping"
        return "stopped early" if control.early(step.key.id) else "stopped"
    if at_work and not ended:
        return "running" if begun else "waiting"
    if newest is not None and ended_early(newest):
        return "failed"
    return "waiting" if at_work else "missing"
