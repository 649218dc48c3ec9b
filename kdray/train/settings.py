"""What a training run's result depends on. Imports nothing heavy: the driver and Ray's controllers read it too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """What a training run's result depends on, apart from the model and the data."""

    lr: float
    batch: int
    alpha: float
    seed: int
    unit: str  # of the length: epochs or steps
    length: float
    schedule: dict[str, Any]
    warmup: float
    weight_decay: float
    clip: float | None
    dtype: str
    packing: bool  # of the sequences of a micro-batch into one row
    method: str = "full"  # or lora, qlora: adapters
    rank: int | None = None  # of the adapters
    scale: float = 2.0  # of the adapters: peft's lora_alpha / r
    dropout: float = 0.0  # before the adapters
    compile: bool = False
    smoothing: float = 0.0  # share of uniform labels among the hard ones
    objective: dict[str, Any] | None = None  # loss, temperature and weighting of the soft labels; None where alpha = 0
    on_policy: float = 0.0  # share of the steps on responses that the student samples
    simpo: dict[str, Any] | None = None  # of pairs, beta and gamma; None where single responses are learned
    sampling: dict[str, Any] | None = None  # their temperature, top_k and max_new_tokens; None where there are none
