"""What every worker of a TorchTrainer runs: train, keep resume state, export checkpoints."""

from __future__ import annotations

import copy
import math
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from ray.train import Checkpoint, CheckpointUploadMode
from safetensors import SafetensorError
from torch import Tensor

from kdray.artifacts.curve import append_step, append_time, write_curve
from kdray.artifacts.notes import note_end, note_start, note_stop
from kdray.artifacts.rows import Rows
from kdray.cost.amounts import HELDOUT_BATCH
from kdray.distill.signals import open_signal
from kdray.models.adapters import load_quantised, merged, narrow, save_adapters, with_lora
from kdray.models.compiled import compile_layers
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder, load_tokenizer, save, token_count
from kdray.orchestration.job import Export, Job
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.errors import InputError
from kdray.store import Control, Store
from kdray.train.checkpoints import Due, Writer, load_checkpoint, newest_checkpoint
from kdray.train.engines import Ranks
from kdray.train.loop import DivergedError, Loop
from kdray.train.pairs import PairLoop, PairRows, read_pairs

LOOK = 2.0  # seconds between looks at whether the point is to stop


def train_job(job: Job) -> bool:
    """Train to the end, from the newest valid checkpoint of any attempt at the job; returns whether it is to go on
    elsewhere, as a node of its workers is being taken away.
    """
    context = ray.train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size())
    torch.set_num_threads(job.threads)
    device = ray.train.torch.get_device()
    loaded = _load(job, device, ranks)
    if reason := ranks.agree(
        str(loaded) if isinstance(loaded, Exception) else None
    ):  # would only happen again: the point's end
        note_end(job.attempt.path, reason)
        return False
    if isinstance(loaded, Exception):
        raise loaded  # the other ranks could read it
    tokenizer, model, pairs = loaded
    rows, kind = (Rows(job.data, job.among), Loop) if pairs is None else (pairs, PairLoop)
    signal = open_signal(job.soft_labels, rows, device, getattr(torch, job.settings.dtype))
    try:
        loop = kind(
            model,
            rows,
            job.settings,
            signal=signal,
            vocab_size=token_count(tokenizer),
            ranks=ranks,
            tokenizer=tokenizer,
            micro_batch=job.micro_batch,
            engine=job.engine,
            asked=Asked(job),
        )
    except (
        InputError,
        ImportError,
    ) as error:  # on every rank alike: an engine that is not installed
        note_end(job.attempt.path, str(error))
        return False
    if checkpoint := ranks.agree(
        newest_checkpoint(job.attempt.folder, loop.engine.layout) if ranks.rank == 0 else None
    ):
        load_checkpoint(loop, checkpoint)
    if ranks.rank == 0:
        _note_start(job, context.get_experiment_name(), loop, device)
        write_curve(job.attempt.path, loop.history)
    writer = _writer(job, loop)
    try:
        return _train(job, loop, writer, tokenizer, ranks)
    except DivergedError as error:  # would only happen again: not a failure to retry, but the point's end
        writer.finish()  # what was exported before stays
        note_end(job.attempt.path, str(error))
        return False


def _writer(job: Job, loop: Loop) -> Writer:
    beside = declared(declare.Engine, job.engine["name"]).beside
    return Writer(loop, beside=beside and loop.device.type == "cuda")


def _train(job: Job, loop: Loop, writer: Writer, tokenizer: Any, ranks: Ranks) -> bool:
    due = defaultdict(list)  # by step: in a short run two positions may round to one
    for export in job.exports:
        due[loop.step_of(export.position)].append(export)
    checkpoints = Due(loop, job.checkpoint_minutes, job.checkpoint_every, _taken_away)
    began = time.monotonic()
    for metrics in loop.steps():
        writer.check()
        last = loop.step == loop.total_steps
        if loop.step in due or last:
            metrics |= loop.heldout(HELDOUT_BATCH)
        if ranks.rank == 0:
            append_step(job.attempt.path, metrics)
        sealed: list[Path] = []
        if loop.step in due or (last and job.final):
            sealed += _export(job, due.get(loop.step, ()), loop, writer, tokenizer, final=last and job.final)
        stops = loop.stopping and not last
        checkpoint_due = (checkpoints() or stops) and not last
        if checkpoint_due:
            sealed += writer.write(job.attempt.path / f"checkpoint-{loop.step:08d}")
            checkpoints.written()
        if stops or checkpoints.leaving or last:
            sealed += writer.finish()
        if checkpoint_due or loop.step in due or last:
            _report(metrics, sealed, ranks)
        if ranks.rank == 0:
            append_time(job.attempt.path, loop.step, time.monotonic() - began, _peak(loop.device), loop.spent)
            began = time.monotonic()
            if stops:
                note_stop(job.attempt.path, loop.step)
        if stops:
            return False
        if checkpoints.leaving and not last:
            return True
    return False


def _peak(device: torch.device) -> float | None:
    """The most memory that tensors have had on a GPU at a time so far, in GiB."""
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None


def _taken_away() -> bool:
    """Whether Ray has been told that a node of the workers will go, as a spot instance does. To be asked on all of
    them alike.
    """
    return ray.train.get_preemption_info() is not None


class Asked:
    """Whether somebody asks for a point to stop, looked up every few seconds. Once it is asked it stays so."""

    def __init__(self, job: Job) -> None:
        self._control, self._id = Control(job.store), job.attempt.key.id
        self._looked, self._asked = -math.inf, False

    def __call__(self) -> bool:
        if not self._asked and time.monotonic() - self._looked >= LOOK:
            self._asked, self._looked = self._control.is_stopped(self._id), time.monotonic()
        return self._asked


def _load(job: Job, device: torch.device, ranks: Ranks) -> tuple[Any, ResponseModel, PairRows | None] | Exception:
    """The tokenizer, the student and the pairs that it learns from, if it does, or why they cannot be read."""
    try:
        model = ResponseModel(_model(job, device, ranks))
        if job.settings.compile:
            compile_layers(model.whole)
        tokenizer = load_tokenizer(job.model)
        return tokenizer, model, read_pairs(job.pairs, tokenizer, job.settings.seed) if job.pairs else None
    except (InputError, OSError, SafetensorError) as error:
        return error


def _model(job: Job, device: torch.device, ranks: Ranks) -> Any:
    """The student as the job trains it, on its device.

    Full weights that `fsdp` will share are rank 0's alone, in main memory; the other ranks know their shapes.
    """
    settings = job.settings
    if device.type == "cuda" and settings.dtype == "bfloat16" and not torch.cuda.is_bf16_supported():
        raise InputError(
            "train.dtype", f"bfloat16 on {torch.cuda.get_device_name(device)}", "this GPU lacks it: use float32"
        )
    if settings.method == "qlora":
        model: Any = load_quantised(job.model, device, getattr(torch, settings.dtype))
    else:
        if job.engine["name"] == "fsdp":
            device = torch.device("meta" if ranks.rank else "cpu")
        # Read where there is room for float32, if the GPU is not to hold that.
        model, _ = load_folder(job.model, device="cpu" if _narrows(job) else device)
    if settings.rank is not None:
        model = with_lora(model, settings.rank, settings.seed, scale=settings.scale, dropout=settings.dropout)
    if _narrows(job):
        narrow(model, getattr(torch, settings.dtype))
    if job.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.to(device)


def _narrows(job: Job) -> bool:
    """Whether frozen layers may be kept in the type of the passes: engines that share weights want them all of one."""
    return job.settings.method == "lora" and job.settings.dtype != "float32" and job.engine["name"] == "ddp"


def _note_start(job: Job, run: str, loop: Loop, device: torch.device) -> None:
    """Keep beside the curve how this attempt ran: none of it is content, all of it may explain a difference."""
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    facts = {
        "train_run": run,
        "resumed_from_step": loop.step,
        "steps": loop.total_steps,
        "workers": job.workers,
        "threads": job.threads,
        "node": platform.node(),
        "device": device_name,
    }
    facts |= {"torch": torch.__version__, "micro_batch": job.micro_batch, "engine": job.engine}
    note_start(job.attempt.path, facts | ({"padded": loop.padded} if loop.padded else {}))


def _report(metrics: dict[str, float], sealed: Sequence[Path], ranks: Ranks) -> None:
    """Hand metrics, and what rank 0 has of checkpoints that are there, to Ray Train, which keeps the newest two.

    They are written where they stay: a copy from a temporary folder would double the time that writing takes.
    """
    for folder in sealed or [None]:
        if folder is None or ranks.rank:
            ray.train.report(metrics)
            continue
        ray.train.report(
            metrics,
            checkpoint=Checkpoint.from_directory(str(folder)),
            checkpoint_dir_name=folder.name,
            checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
        )


def _export(
    job: Job, exports: Sequence[Export], loop: Loop, writer: Writer, tokenizer: Any, *, final: bool
) -> list[Path]:
    """Keep the model as it is now as artifacts of their own and, if `final`, in the attempt's folder. On every rank.

    Returns the checkpoints that have been sealed since the writer's last call.
    """
    rank, step, store = job.settings.rank, loop.step, Store(job.store)

    def plain(weights: dict[str, Tensor], dtype: torch.dtype) -> tuple[Any, dict[str, Tensor] | None]:
        if rank is None:  # a copy of the shell alone: sampling gives the model another generation config for a while
            return copy.copy(loop.model.whole), weights
        return merged(job.model, rank, weights, job.settings.scale, dtype), None

    def prepare(weights: dict[str, Tensor]) -> Callable[[], None]:
        """Models are made at once: what that sets for a while, random numbers and the default type, is every
        thread's.
        """
        missing = [export for export in exports if _is_missing(store, export)]
        types = {getattr(torch, export.dtype) for export in missing if not export.adapters}
        models = {dtype: plain(weights, dtype) for dtype in types | ({torch.float32} if final else set())}

        def keep() -> None:
            for export in missing:
                attempt, dtype = store.begin(export.key, export.payload), getattr(torch, export.dtype)
                if export.adapters:
                    save_adapters(loop.model.whole, tokenizer, attempt.path, weights, job.model, dtype)
                else:
                    model, state = models[dtype]
                    save(model, tokenizer, attempt.path, state, dtype)
                attempt.seal(step=step, examples=step * job.settings.batch)
            if final:
                model, state = models[torch.float32]
                save(model, tokenizer, job.attempt.path, state)

        return keep

    return writer.export(prepare)


def _is_missing(store: Store, export: Export) -> bool:
    """Whether an export is to be made; one whose weights were dropped and are wanted again is taken back."""
    if export.again and (made := store.get(export.key)) and made.dropped:
        store.reopen(export.key)
    return store.get(export.key) is None
