"""A training job: everything that a worker on another machine needs to do it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdray.artifacts.source import LabelSource
from kdray.store import Attempt, Key
from kdray.train.settings import Settings


@dataclass(frozen=True)
class Export:
    """A checkpoint to keep as a model of its own, in a dtype; of adapters, those alone or merged into a plain model.

    `again`: also if it was kept and its weights were dropped since.
    """

    position: float
    key: Key
    payload: dict[str, Any]
    dtype: str = "float32"
    adapters: bool = False
    again: bool = False


@dataclass(frozen=True)
class Job:
    """One training run, with all that a worker on another machine needs to do it."""

    settings: Settings
    model: Path
    data: Path
    among: tuple[Path, str] | None  # the choice of rows to train on, and which, if not all are
    soft_labels: tuple[LabelSource, ...]
    store: Path
    attempt: Attempt
    exports: tuple[Export, ...]
    final: bool  # whether the attempt's own folder gets the trained model (the teacher)
    engine: dict[str, Any]
    gradient_checkpointing: bool
    micro_batch: int | None
    checkpoint_minutes: float
    checkpoint_every: int | None  # steps
    workers: int
    threads: int  # of each worker
    use_gpu: bool
    accelerator: str | None  # the only type of GPU to use
    on_one_node: bool
    driver: str  # which run it is a part of, as locks and `Control` name it
    gpu: float = 1  # of one, for each worker
    pairs: Path | None = None  # answers with citations, if it is pairs of these that are learned
