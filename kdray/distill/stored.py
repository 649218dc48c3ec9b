"""Soft labels that were kept on disk, as the signal that the objective reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kdray.artifacts.soft_labels import KeptHead, KeptLabels, has_head, read_kept_head, write_kept_head
from kdray.data.collate import moved
from kdray.distill.labels import SoftLabels
from kdray.models.head import Head


def write_head(head: Head, folder: Path) -> None:
    """Keep the teacher's output head in its own precision."""
    write_kept_head(folder, KeptHead(head.linear.state_dict(), head.scale, head.softcap))


def read_head(folder: Path) -> Head:
    """The head that `write_head` kept.

    Raises:
        InputError: it is missing or damaged.
    """
    kept = read_kept_head(folder)
    weight = kept.tensors["weight"]
    linear = nn.Linear(*reversed(weight.shape), bias="bias" in kept.tensors, dtype=weight.dtype)
    linear.load_state_dict(dict(kept.tensors))
    return Head(linear, kept.scale, kept.softcap).requires_grad_(False)


class Stored:
    """The soft labels in a folder; `read(rows)` reads only what it is asked for.

    Args:
        form: an instance of a file of `kdray.distill.signals`.
        temperature: at which they were kept.
        dtype: of the head's products, where the form needs a head.

    Raises:
        InputError: a file is missing or damaged.
    """

    def __init__(
        self,
        folder: Path,
        form: Any,
        temperature: float = 1.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.form, self.temperature, self.device = form, temperature, device
        self.head = read_head(folder).as_type(dtype).to(device) if has_head(folder) else None
        self._kept = KeptLabels(folder)

    @property
    def width(self) -> int | None:
        return self._kept.width("logits") if self.head is None else self.head.linear.out_features

    def read(self, rows: Sequence[int]) -> SoftLabels:
        """The labels at the response tokens of `rows`, one row after the other."""
        return self.form.labels(
            {name: moved(tensor, self.device) for name, tensor in self._kept.read(rows).items()}, self.head
        )

    def mean(self, name: str) -> float | None:
        """Of a kept tensor over all tokens; None if this form keeps no such tensor."""
        tensor = self._kept.whole(name)
        return None if tensor is None else float(tensor.double().mean())
