"""How much room soft labels will take, as far as it can be told without making them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdray.plan.inputs import SoftenInputs
from kdray.plan.steps import Plan, Step
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.folders import CONFIG, read_config
from kdray.store import Store

WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}  # bytes


@dataclass(frozen=True)
class LabelSize:
    """`per_token`: bytes a response token; `fixed`: bytes of the teacher's head; `tokens` is None until the data are
    prepared.
    """

    per_token: int
    fixed: int
    tokens: int | None

    @property
    def total(self) -> int | None:
        return None if self.tokens is None else self.per_token * self.tokens + self.fixed

    def __str__(self) -> str:
        if self.total is None:
            return f"{self.per_token:,} bytes a response token"
        return f"about {self.total / 1e6:,.1f} MB ({self.tokens:,} response tokens x {self.per_token:,} bytes)"


def size_of_labels(step: Step, store: Store) -> LabelSize | None:
    """Of the soft labels that a step makes; None if it makes none, and as long as nobody has seen the teacher's
    config.
    """
    if not isinstance(step.inputs, SoftenInputs) or step.payload is None:
        return None
    if (config := _config(step.inputs.teacher, store)) is None:
        return None
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    form = step.params["form"]
    width = WIDTH.get(str(config.get("dtype") or config.get("torch_dtype") or "float32"), 4)
    head = hidden * vocabulary * width if declared(declare.Form, form["name"]).head else 0
    rows = store.get(step.inputs.data.key)
    tokens = rows.facts.get("response_tokens") if rows else None
    return LabelSize(bytes_per_token(form, hidden, vocabulary), head, tokens)


def bytes_per_token(form: dict[str, Any], hidden: int, vocabulary: int) -> int:
    """Of a form `{name, params}`: what its `keep` leaves on disk."""
    params = form["params"]
    numbers = {"hidden": hidden, "vocabulary": vocabulary}
    bytes_of = WIDTH | {"id": 2 if vocabulary <= 1 << 16 else 4}

    def size(kept: declare.Kept) -> int:
        width = sum(params[part.name] if isinstance(part, declare.Param) else numbers[part] for part in kept.width)
        return (width or 1) * bytes_of[params[kept.type.name] if isinstance(kept.type, declare.Param) else kept.type]

    kept = [tensor for tensor in declared(declare.Form, form["name"]).kept if tensor.when.items() <= params.items()]
    return sum(map(size, kept))


def _config(teacher: Step, store: Store) -> dict[str, Any] | None:
    """Of the teacher's model in the store, or in its own folder."""
    model = teacher.untuned
    if model.id and (artifact := store.get(model.key)):
        folder = artifact.path
    elif model.source is not None and model.source.scheme == "file":
        folder = Path(model.source.name)
    else:
        return None
    path = folder / CONFIG
    config = read_config(folder, "teacher.model") if path.is_file() else {}
    return config if {"hidden_size", "vocab_size"} <= set(config) else None


def training_rows(plan: Plan, store: Store) -> int | None:
    """How many rows every epoch has; None until the data are prepared."""
    artifact = plan.prepare and plan.prepare.id and store.get(plan.prepare.key)
    return artifact.facts.get("train") if artifact else None
