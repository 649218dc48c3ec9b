"""Early stopping: ASHA ranks the points of an arm by held-out loss, and those that fall behind are asked to leave off.

Points report their held-out losses to Tune, whose scheduler sees them here. Where ASHA would end a trial, in the middle
of a step, the point is asked through the store instead, as by `kdray stop`: it leaves a checkpoint behind, and no later
run goes on with it. Which points are compared, and when, follows from what they have measured alone, in whichever run.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from kdray.artifacts.curve import Curve
from kdray.artifacts.rows import Rows
from kdray.orchestration.trainer import settings_of
from kdray.orchestration.watch import step_at
from kdray.orchestration.work import Work
from kdray.report.arms import Arm, arm_of
from kdray.report.results import curve_of
from kdray.spec.sections.training import SearchSection
from kdray.store import Control

LOSS, REACHED = "heldout_ce", "reached"


@dataclass(frozen=True)
class Ranked:
    """A point that is compared with those of its arm: `rungs` are numbered from 0, by the step that each is at, `told`
    how a person knows them.
    """

    id: str
    arm: Arm
    rungs: Mapping[int, int]
    told: Mapping[int, str]


def early_stopping(work: Work) -> EarlyStopping | None:
    """What decides for a run's points, and knows what they have measured in earlier ones; None where each trains to its
    end.

    Raises:
        InputError: the curve of a point is damaged.
    """
    grid, ranked, curves = work.plan.grid, dict[str, Ranked](), dict[str, Curve]()
    if grid.search is None:
        return None
    rungs = grid.search.rungs(grid.train)
    for point in work.plan.points:
        step = point.train
        if any(work.store.get(read.key) is None for read in (step.inputs.data, step.inputs.among) if read):
            continue  # what it learns could not be made
        rows = functools.partial(Rows, work.folder(step.inputs.data), work.among(step))
        at = [step_at(settings_of({"alpha": 0.0} | step.params), rows, rung) for rung in rungs]
        told = [f"{rung:g} {grid.train.unit}" for rung in rungs]
        ranked[step.key.slug] = Ranked(
            step.key.id, arm_of(point.point), {s: i for i, s in enumerate(at)}, dict(zip(at, told, strict=True))
        )
        curves[step.key.slug] = curve_of(step, work.store)
    stopping = EarlyStopping(ranked, grid.search, len(rungs), work.control)
    for slug, curve in curves.items():
        stopping.remember(slug, curve)
    return stopping


class EarlyStopping(FIFOScheduler):
    """A scheduler of Tune's that starts all `points` in their order, and stops some by ASHA, arm by arm.

    An arm is what a grid compares: between arms the loss decides nothing.
    """

    def __init__(self, points: Mapping[str, Ranked], search: SearchSection, rungs: int, control: Control) -> None:
        super().__init__()
        self._points, self._reduction, self._control = points, search.reduction, control
        self._arms = {point.arm: self._asha(rungs) for point in points.values()}

    def remember(self, slug: str, curve: Curve) -> None:
        """Let others be held against what a point has measured; it is not judged by it again."""
        for entry in curve:
            self._falls_behind(slug, entry)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        slug = trial.config["point"]
        if self._falls_behind(slug, result):
            point = self._points[slug]
            self._control.stop(point.id, early=f"held-out loss {result[LOSS]:.4f} at {point.told[result['step']]}")
        return TrialScheduler.CONTINUE  # it ends by itself, once it has heard

    def _asha(self, rungs: int) -> ASHAScheduler:
        """Rung k is reached at reduction^k: where the rungs lie in training is the points' business."""
        return ASHAScheduler(
            REACHED, LOSS, "min", grace_period=1, max_t=self._reduction**rungs, reduction_factor=self._reduction
        )

    def _falls_behind(self, slug: str, result: Mapping[str, Any]) -> bool:
        """Whether ASHA stops the point at the rung that it has reached, if it has; at each it is judged once."""
        point = self._points[slug]
        rung = point.rungs.get(int(result["step"]))
        if rung is None or LOSS not in result:
            return False
        asha, trial = self._arms[point.arm], SimpleNamespace(trial_id=slug)
        asha.on_trial_add(None, trial)  # pyright: ignore[reportArgumentType]
        action = asha.on_trial_result(
            None,  # pyright: ignore[reportArgumentType]
            trial,  # pyright: ignore[reportArgumentType]
            {REACHED: self._reduction**rung, LOSS: result[LOSS]},
        )
        return action == TrialScheduler.STOP
