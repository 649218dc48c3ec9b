"""train: every missing point as a trial of one Ray Tune run, and every trial a Ray Train TorchTrainer job."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import TrialScheduler

from kdray.artifacts.curve import log_files
from kdray.artifacts.notes import ended_early, note_stop, stopped_at
from kdray.orchestration.early import early_stopping
from kdray.orchestration.job import Export, Job
from kdray.orchestration.pools import longest_first
from kdray.orchestration.trainer import ON_HEAD, facts_of, fit, last_line, make_job
from kdray.orchestration.watch import job_steps, watch
from kdray.orchestration.work import Work, weights_read_by
from kdray.plan import PointPlan
from kdray.report.chosen import steps_of
from kdray.spec import declare
from kdray.spec.points import rank
from kdray.store import Control, Key

DECLARED = declare.Stage(version=2)
LOOK = 1.0  # seconds between looks at whether a point may begin
TRIAL_FAILURES = 1  # restarts of a trial whose own process died


def train(points: list[PointPlan], work: Work) -> None:
    """Train the missing ones of `points`, but for those that are to stop."""
    by_step = {point.train.key: point for point in points}
    if work.plan.grid.search is None:  # what one has stopped in another run trains to its end
        ids = [point.train.key.id for point in points]
        work.control.unstop(id for id in ids if work.control.early(id))
    while True:
        _leave_stopped(points, work)
        with work.claim([point.train for point in points]) as claimed:
            if not claimed:
                return
            again = lost(work)
            made = {
                step.key.slug: make_job(step, attempt, work, _exports(by_step[step.key], again))
                for step, attempt in claimed
            }
            priority = work.plan.grid.runtime.priority
            ranks = {step.key.slug: rank(by_step[step.key].point, priority) for step, _ in claimed}
            jobs = in_order(made, work.expected, ranks)
            with watch("train", list(jobs.values()), work):
                errors = _tune(jobs, work)
            for step, _ in claimed:
                attempt = jobs[step.key.slug].attempt.path
                if reason := ended_early(attempt) or errors.get(step.key.slug):
                    work.fail(step, reason)
                elif stopped_at(attempt) is not None:
                    work.stop(step)


def _leave_stopped(points: list[PointPlan], work: Work) -> None:
    """Leave the points that are to stop, and take up again those that were and have been released since."""
    asked = {point.train.id for point in points if work.control.is_stopped(point.train.key.id)}
    if any(point.train.id in work.stopped - asked for point in points):
        work.take_up()
    for point in points:
        if point.train.id in asked and not work.store.get(point.train.key):
            work.stop(point.train)


def in_order(
    jobs: dict[str, Job], expected: Mapping[str, float], ranks: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Job]:
    """The jobs as Tune gets them, by their ranks, and of equal rank longest first: by what they are expected to take
    or, where that is not known of all, by their steps.
    """
    ids = {slug: job.attempt.key.id for slug, job in jobs.items()}
    known = (
        expected if expected.keys() >= set(ids.values()) else {ids[slug]: job_steps(job) for slug, job in jobs.items()}
    )
    return {slug: jobs[slug] for slug in longest_first({slug: known[id] for slug, id in ids.items()}, ranks)}


def _tune(jobs: dict[str, Job], work: Work) -> dict[str, str]:
    """Run the jobs as trials; returns the errors by slug.

    The Tune experiment is thrown away afterwards: what is done is known by the store, which takes a changed grid.
    """
    scratch = work.store.root / "scratch" / uuid.uuid4().hex
    scratch.mkdir(parents=True)
    try:
        trial, at_once = tune.with_parameters(_trial, jobs=jobs), work.resources.points_beside
        return run_trials(trial, list(jobs), at_once, scratch, early_stopping(work))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def run_trials(
    trial: Any, names: Sequence[str], at_once: int, folder: Path, scheduler: TrialScheduler | None = None
) -> dict[str, str]:
    """Run `trial`, a function of {"point": name}, for all names in their order, so many at once; errors by name."""
    # Train reserves the workers itself; a trial that asked for a core of its own would wait for it for ever
    # on a machine whose cores are all reserved.
    tuner = tune.Tuner(
        tune.with_resources(trial, {"CPU": 0, "memory": 1_000_000, **ON_HEAD}),
        param_space={"point": tune.grid_search(list(names))},
        tune_config=tune.TuneConfig(scheduler=scheduler, max_concurrent_trials=at_once, reuse_actors=True),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=TRIAL_FAILURES),
            callbacks=[_Silent()],
        ),
    )
    results = tuner.fit()
    return {result.config["point"]: last_line(result.error) for result in results if result.error and result.config}


class _Silent(TrialProgressCallback):
    """Tune's own says at any verbosity that a trial without results is completed, also of a point that was stopped
    before it began. How points end is told by this stage.
    """

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        pass


def _trial(config: dict[str, str], jobs: dict[str, Job]) -> None:
    """One point: a TorchTrainer whose reports reach Tune, and DONE once it has ended well."""
    job = jobs[config["point"]]
    if not _may_begin(job):
        return
    began = time.monotonic()  # the attempt was begun when its run was: before all points that had their turn earlier
    fit(job, [TuneReportCallback])
    if ended_early(job.attempt.path) or stopped_at(job.attempt.path) is not None:
        return
    facts = {"tune_trial": tune.get_context().get_trial_id(), "seconds": round(time.monotonic() - began, 1)}
    job.attempt.seal(log_files(job.attempt.path), **facts, **facts_of(job.attempt))


def _may_begin(job: Job) -> bool:
    """Whether the point is still wanted, once its run is not held."""
    control = Control(job.store)
    while not (stopped := control.is_stopped(job.attempt.key.id)) and control.is_held(job.driver):
        time.sleep(LOOK)
    if stopped:
        note_stop(job.attempt.path, 0)
    return not stopped


def _exports(point: PointPlan, again: set[Key]) -> list[Export]:
    form, end = point.train.params.get("export", {}), point.train.params["length"]
    return [  # what is aligned has its own length, and its place among checkpoints from the point that it goes on from
        Export(end if point.point.aligned else at, export.key, export.payload or {}, again=export.key in again, **form)
        for at, export in point.exports.items()
    ]


def lost(work: Work) -> set[Key]:
    """The exports whose weights were dropped, and which a missing step reads."""
    scores = [step for score in work.plan.scores if score.position is not None for step in steps_of(score)]
    waiting = [step for step in work.missing(scores) if work.is_dropped(step)]
    return {export.key for step in waiting if (export := weights_read_by(step))}
