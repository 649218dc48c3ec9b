"""The TorchTrainer of a training job, and the job of a step.

Kept apart from what the workers do, so that trials and controllers, which only pass jobs on, start without
loading transformers (4 of the 7 seconds that a worker's imports take).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from kdray.artifacts.curve import read_shares
from kdray.artifacts.notes import read_start
from kdray.orchestration.job import Export, Job
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import TrainInputs
from kdray.spec import declare
from kdray.spec.components import component
from kdray.store import Attempt
from kdray.train.settings import Settings

CHECKPOINTS_KEPT = 2  # one may be damaged by the very fault that makes us need it
# Where trials and Train's controllers, which stay on their trial's node, live: losing another node then costs its
# workers alone.
ON_HEAD = {"node:__internal_head__": 0.001}
WORKER_FAILURES = 2  # restarts of a trial's workers before the trial counts as failed


def make_job(
    step: Step[TrainInputs],
    attempt: Attempt,
    work: Work,
    exports: Sequence[Export] = (),
    *,
    threads: int = 1,
    final: bool = False,
) -> Job:
    """The job that trains what `step` asks for, as the grid's `runtime` and the cluster have it."""
    runtime, resources = work.plan.grid.runtime, work.resources
    return Job(
        settings=settings_of({"alpha": 0.0} | step.params),
        model=work.folder(step.inputs.student),
        data=work.folder(step.inputs.data),
        among=work.among(step),
        soft_labels=work.soft_labels(step.inputs, step.params),
        store=work.store.root,
        attempt=attempt,
        exports=tuple(exports),
        final=final,
        engine=runtime.engine.model_dump() | component(declare.Engine, runtime.engine.name, "runtime.engine").origin,
        gradient_checkpointing=runtime.gradient_checkpointing,
        micro_batch=runtime.micro_batch,
        checkpoint_minutes=runtime.checkpoint_minutes,
        checkpoint_every=runtime.checkpoint_every,
        workers=resources.workers,
        threads=threads,
        use_gpu=resources.gpus > 0,
        accelerator=resources.accelerator,
        on_one_node=resources.on_one_node,
        gpu=resources.asked(1),
        driver=work.locks.owner,
        pairs=work.folder(step.inputs.pairs) if step.inputs.pairs else None,
    )


def settings_of(params: dict[str, Any]) -> Settings:
    """The training settings among a step's parameters."""
    return Settings(**{name: params[name] for name in Settings.__dataclass_fields__ if name in params})


def make_trainer(job: Job, callbacks: list[Any] | None = None) -> TorchTrainer:
    """The TorchTrainer of a job. Its run directory is the attempt's own folder."""
    each: dict[str, float] = {"GPU": job.gpu} if job.use_gpu else {"CPU": job.threads}
    return TorchTrainer(
        _work,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=job.workers,
            use_gpu=job.use_gpu,
            resources_per_worker=each,
            accelerator_type=job.accelerator,
            placement_strategy="STRICT_PACK" if job.on_one_node else "PACK",
        ),
        run_config=RunConfig(
            name=job.attempt.name,
            storage_path=str(job.attempt.folder),
            failure_config=FailureConfig(max_failures=WORKER_FAILURES, controller_failure_limit=3),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
            callbacks=callbacks,
        ),
    )


def fit(job: Job, callbacks: Sequence[type] = ()) -> None:
    """Train a job to its end, or until it is stopped: once more, elsewhere, whenever its workers leave a node that is
    being taken away. That is no failure, of which there are but a few.

    `callbacks` are those of its reports, made anew each time.
    """
    left = True
    while left:
        left = make_trainer(job, [callback() for callback in callbacks]).fit().return_value


def facts_of(attempt: Attempt) -> dict[str, Any]:
    """How the attempt ran, as its workers noted it when they started, and on what its time was spent, if that is told
    apart.
    """
    shares = read_shares(attempt.path)
    return read_start(attempt.path) | {f"{what}_share": round(share, 3) for what, share in shares.items()}


def _work(config: dict[str, Job]) -> bool:
    from kdray.orchestration.worker import train_job

    return train_job(config["job"])


def last_line(error: Exception) -> str:
    """What an error comes down to, from the end of its traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
