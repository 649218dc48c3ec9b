"""A training job: everything that a worker on another machine needs, and the TorchTrainer that runs it.

Kept apart from what the workers do, so that trials and controllers, which only pass jobs on, start without
loading transformers (4 of the 7 seconds that a worker's imports take).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from kdray.store import Attempt, Key, io
from kdray.train.settings import LabelSource, Settings

CURVE, START, DIVERGED = "metrics.jsonl", "start.json", "diverged.json"
CHECKPOINTS_KEPT = 2  # one may be damaged by the very fault that makes us need it
# Where trials and Train's controllers, which stay on their trial's node, live: losing another node then costs its workers alone.
ON_HEAD = {"node:__internal_head__": 0.001}
WORKER_FAILURES = 2  # restarts of a trial's workers before the trial counts as failed


@dataclass(frozen=True)
class Export:
    """A checkpoint to keep as a model of its own."""

    position: float
    key: Key
    payload: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One training run, with all that a worker on another machine needs to do it."""

    settings: Settings
    model: Path
    data: Path
    soft_labels: tuple[LabelSource, ...]
    store: Path
    attempt: Attempt
    exports: tuple[Export, ...]
    final: bool  # whether the attempt's own folder gets the trained model (the teacher)
    engine: dict[str, Any]
    gradient_checkpointing: bool
    micro_batch: int | None
    checkpoint_every: int
    workers: int
    threads: int  # of each worker
    use_gpu: bool
    accelerator: str | None  # the only type of GPU to use
    on_one_node: bool


def make_trainer(job: Job, callbacks: list[Any] | None = None) -> TorchTrainer:
    """The TorchTrainer of a job. Its run directory is the attempt's own folder."""
    cpus = {} if job.use_gpu else {"CPU": job.threads}
    return TorchTrainer(
        _work,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=job.workers,
            use_gpu=job.use_gpu,
            resources_per_worker=cpus or None,
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


def facts_of(attempt: Attempt) -> dict[str, Any]:
    """How the attempt ran, as its workers noted it when they started."""
    return io.read_json(attempt.path / START) or {}


def _work(config: dict[str, Job]) -> None:
    from kdray.stages.worker import train_job

    train_job(config["job"])
