"""train: every missing point as a trial of one Ray Tune run, and every trial a Ray Train TorchTrainer job."""

from __future__ import annotations

import contextlib
import shutil
import threading
import uuid
from collections.abc import Iterator
from typing import Any

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from kdray.data.rows import Rows
from kdray.plan import PointPlan, Step
from kdray.stages.job import CURVE, DIVERGED, ON_HEAD, Export, Job, facts_of, make_trainer
from kdray.stages.work import Work
from kdray.store import Attempt, io
from kdray.train.order import Order
from kdray.train.settings import Settings

VERSION = 2
TICK = 2.0  # seconds between looks at the running points' curves
TRIAL_FAILURES = 1  # restarts of a trial whose own process died


def train(points: list[PointPlan], work: Work) -> None:
    """Train the missing ones of `points`."""
    by_step = {point.train.key: point for point in points}
    while True:
        with work.claim([point.train for point in points]) as claimed:
            if not claimed:
                return
            jobs = {step.key.slug: _job(by_step[step.key], step, attempt, work) for step, attempt in claimed}
            with watch("train", list(jobs.values()), work):
                errors = _tune(jobs, work)
            for step, _ in claimed:
                diverged = io.read_json(jobs[step.key.slug].attempt.path / DIVERGED)
                if reason := diverged or errors.get(step.key.slug):
                    work.fail(step, reason)


def _tune(jobs: dict[str, Job], work: Work) -> dict[str, str]:
    """Run the jobs as trials; returns the errors by slug.

    The Tune experiment is thrown away afterwards: what is done is known by the store, which takes a changed grid.
    """
    scratch = work.store.root / "scratch" / uuid.uuid4().hex
    scratch.mkdir(parents=True)
    # Train reserves the workers itself; a trial that asked for a core of its own would wait for it for ever
    # on a machine whose cores are all reserved.
    trial = tune.with_resources(tune.with_parameters(_trial, jobs=jobs), {"CPU": 0, "memory": 1_000_000, **ON_HEAD})
    tuner = tune.Tuner(
        trial,
        param_space={"point": tune.grid_search(list(jobs))},
        tune_config=tune.TuneConfig(max_concurrent_trials=work.resources.concurrent_points, reuse_actors=True),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=TRIAL_FAILURES),
        ),
    )
    try:
        results = tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {result.config["point"]: last_line(result.error) for result in results if result.error and result.config}


def _trial(config: dict[str, str], jobs: dict[str, Job]) -> None:
    """One point: a TorchTrainer whose reports reach Tune, and DONE once it has ended well."""
    job = jobs[config["point"]]
    make_trainer(job, [TuneReportCallback()]).fit()
    if (job.attempt.path / DIVERGED).is_file():
        return
    job.attempt.seal([job.attempt.path / CURVE], tune_trial=tune.get_context().get_trial_id(), **facts_of(job.attempt))


def settings_of(params: dict[str, Any]) -> Settings:
    """The training settings among a step's parameters."""
    return Settings(**{name: params[name] for name in Settings.__dataclass_fields__ if name in params})


def _job(point: PointPlan, step: Step, attempt: Attempt, work: Work) -> Job:
    runtime = work.plan.grid.runtime
    return Job(
        settings=settings_of(step.params),
        model=work.folder(step.inputs["student"]),
        data=work.folder(step.inputs["data"]),
        soft_labels=work.soft_labels(step),
        store=work.store.root,
        attempt=attempt,
        exports=tuple(Export(at, export.key, export.payload or {}) for at, export in point.exports.items()),
        final=False,
        engine=runtime.engine.model_dump(),
        gradient_checkpointing=runtime.gradient_checkpointing,
        micro_batch=runtime.micro_batch,
        checkpoint_every=runtime.checkpoint_every,
        workers=work.resources.workers,
        threads=1,
        use_gpu=work.resources.gpus > 0,
        accelerator=work.resources.accelerator,
        on_one_node=work.resources.on_one_node,
    )


@contextlib.contextmanager
def watch(title: str, jobs: list[Job], work: Work) -> Iterator[None]:
    """Show the jobs' steps, and mirror their curves, from a thread that reads what rank 0 appends."""
    total = sum(_steps(job) for job in jobs)
    stop = threading.Event()
    with work.progress.bar(title, total, "steps") as bar:

        def look() -> None:
            while not stop.wait(TICK):
                bar.set(sum(_lines(job) for job in jobs))
                work.after()

        thread = threading.Thread(target=look, name="kdray-watch", daemon=True)
        thread.start()
        try:
            yield
            bar.set(sum(_lines(job) for job in jobs))
        finally:
            stop.set()
            thread.join()


def _steps(job: Job) -> int:
    order = Order(Rows(job.data).train, job.settings.batch, job.settings.seed)
    return order.steps(job.settings.length) if job.settings.unit == "epochs" else int(job.settings.length)


def _lines(job: Job) -> int:
    path = job.attempt.path / CURVE
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def last_line(error: Exception) -> str:
    """What an error comes down to, from the end of its traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
