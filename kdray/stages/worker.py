"""What every worker of a TorchTrainer runs: train, keep resume state, export checkpoints."""

from __future__ import annotations

import importlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from kdray.data.rows import Rows
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder, save
from kdray.store import Attempt, Key, Store
from kdray.train.checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint
from kdray.train.loop import Loop, Ranks, Settings

CURVE = "metrics.jsonl"
HELDOUT_BATCH = 8
CHECKPOINTS_KEPT = 2  # one may be damaged by the very fault that makes us need it
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
    soft_labels: Path | None
    form: str
    store: Path
    attempt: Attempt
    exports: tuple[Export, ...]
    final: bool  # whether the attempt's own folder gets the trained model (the teacher)
    lora_rank: int | None
    micro_batch: int | None
    checkpoint_every: int
    workers: int
    threads: int  # of each worker
    use_gpu: bool


def make_trainer(job: Job, callbacks: list[Any] | None = None) -> TorchTrainer:
    """The TorchTrainer of a job. Its run directory is the attempt's own folder."""
    cpus = {} if job.use_gpu else {"CPU": job.threads}
    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=job.workers,
            use_gpu=job.use_gpu,
            resources_per_worker=cpus or None,
            placement_strategy="STRICT_PACK" if 1 < job.workers <= 8 else "PACK",
        ),
        run_config=RunConfig(
            name=job.attempt.name,
            storage_path=str(job.attempt.folder),
            failure_config=FailureConfig(max_failures=WORKER_FAILURES, controller_failure_limit=3),
            checkpoint_config=CheckpointConfig(num_to_keep=CHECKPOINTS_KEPT),
            callbacks=callbacks,
        ),
    )


def train_worker(config: dict[str, Job]) -> None:
    """Train one job to its end, from the newest valid checkpoint of any attempt at it."""
    job = config["job"]
    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    torch.set_num_threads(job.threads)
    model, tokenizer = load_folder(job.model)
    if job.lora_rank:
        model = _with_lora(model, job.lora_rank)
    signal = None
    device = ray.train.torch.get_device()
    if job.soft_labels:
        signal = getattr(importlib.import_module(f"kdray.distill.signals.{job.form}"), job.form)(job.soft_labels, device)
    loop = Loop(
        ResponseModel(model).to(device),
        Rows(job.data),
        job.settings,
        signal=signal,
        vocab_size=len(tokenizer),
        ranks=ranks,
        micro_batch=job.micro_batch,
    )
    if checkpoint := newest_checkpoint(job.attempt.folder):
        load_checkpoint(loop, checkpoint)
    curve = job.attempt.path / CURVE
    if ranks.rank == 0:
        curve.write_text("".join(json.dumps(entry) + "\n" for entry in loop.history))
    due = {loop.step_of(export.position): export for export in job.exports}
    for metrics in loop.steps():
        last = loop.step == loop.total_steps
        if loop.step in due or last:
            metrics |= loop.heldout(HELDOUT_BATCH)
        if ranks.rank == 0:
            with curve.open("a") as file:
                file.write(json.dumps(metrics) + "\n")
            if export := due.get(loop.step):
                _export(job, export, loop, tokenizer)
            if last and job.final:
                save(_merged(loop.model.model), tokenizer, job.attempt.path)
        if loop.step in due or last or loop.step % job.checkpoint_every == 0:
            _report(metrics, loop, ranks)


def _report(metrics: dict[str, float], loop: Loop, ranks: Ranks) -> None:
    """Hand metrics and, from rank 0, a checkpoint to Ray Train."""
    if ranks.rank:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(loop, Path(folder))
        ray.train.report(metrics, checkpoint=Checkpoint.from_directory(folder))


def _export(job: Job, export: Export, loop: Loop, tokenizer: Any) -> None:
    store = Store(job.store)
    if store.get(export.key) is None:
        attempt = store.begin(export.key, export.payload)
        save(_merged(loop.model.model), tokenizer, attempt.path)
        attempt.seal(step=loop.step, examples=loop.step * job.settings.batch)


def _with_lora(model: Any, rank: int) -> Any:
    """`model` with LoRA adapters on all linear layers of its decoder; only they are trained."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    adapted.base_model.model.peft_adapted = adapted
    return adapted.base_model.model


def _merged(model: Any) -> Any:
    """A plain model to save: adapters merged into a copy, so that training could go on."""
    import copy

    if not hasattr(model, "peft_adapted"):
        return model
    return copy.deepcopy(model.peft_adapted).merge_and_unload()
