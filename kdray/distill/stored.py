"""Soft labels on disk: parts of rows as safetensors files, read by slice through a memory map, and the teacher's head.

A part holds its rows' numbers, where each row's tokens end, and the tensors of the form, one row a token.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdray.distill.labels import SoftLabels
from kdray.models.head import Head

HEAD, HEAD_FACTS = "head.safetensors", "head.json"
OPEN_PARTS = 64


def write_part(path: Path, rows: Sequence[int], kept: Sequence[Mapping[str, Tensor]], **facts: float) -> None:
    """Write what is kept of each of `rows` (tensors of one row a token), and facts about the part."""
    ends = torch.tensor([0, *(len(next(iter(row.values()))) for row in kept)]).cumsum(0)
    tensors = {name: torch.cat([row[name] for row in kept]).cpu().contiguous() for name in kept[0]}
    metadata = {name: repr(value) for name, value in facts.items()}
    save_file({"rows": torch.tensor(list(rows)), "ends": ends, **tensors}, path, metadata)


def read_fact(path: Path, name: str) -> float:
    """A fact about the part at `path`."""
    with safe_open(path, "pt") as part:
        return float(part.metadata()[name])


def write_head(head: Head, folder: Path) -> None:
    """Keep the teacher's output head in its own precision."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in head.linear.state_dict().items()}
    save_file(tensors, folder / HEAD)
    (folder / HEAD_FACTS).write_text(json.dumps({"scale": head.scale, "softcap": head.softcap}))


def read_head(folder: Path) -> Head:
    """The head that `write_head` kept."""
    tensors = load_file(folder / HEAD)
    facts = json.loads((folder / HEAD_FACTS).read_text())
    linear = nn.Linear(*reversed(tensors["weight"].shape), bias="bias" in tensors, dtype=tensors["weight"].dtype)
    linear.load_state_dict(tensors)
    return Head(linear, facts["scale"], facts["softcap"]).requires_grad_(False)


class Stored:
    """The soft labels in a folder; `read(rows)` reads only what it is asked for.

    Args:
        form: an instance of a file of `kdray.distill.signals`.
        temperature: at which they were kept.
        dtype: of the head's products, where the form needs a head.
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
        self.head = read_head(folder).as_type(dtype).to(device) if (folder / HEAD).is_file() else None
        self._open = functools.lru_cache(OPEN_PARTS)(lambda path: safe_open(path, "pt"))
        self._paths = sorted(folder.glob("part-*.safetensors"))
        numbers, spans = [], []
        for i, path in enumerate(self._paths):
            with safe_open(path, "pt") as part:
                rows, ends = part.get_tensor("rows").numpy(), part.get_tensor("ends").numpy()
            numbers.append(rows)
            spans.append(np.stack([np.full(len(rows), i), ends[:-1], ends[1:]], 1))
        self._spans = np.zeros((int(max(n.max(initial=-1) for n in numbers)) + 1, 3), dtype=np.int64)
        self._spans[np.concatenate(numbers)] = np.concatenate(spans)  # by row: part, first token, end

    @property
    def width(self) -> int | None:
        if self.head is not None:
            return self.head.linear.out_features
        part = self._open(self._paths[0])
        return part.get_slice("logits").get_shape()[1] if "logits" in part.keys() else None  # noqa: SIM118 - safe_open is no mapping

    def read(self, rows: Sequence[int]) -> SoftLabels:
        """The labels at the response tokens of `rows`, one row after the other."""
        slices = [self._spans[row] for row in rows] or [(0, 0, 0)]
        read = [self._slice(*span) for span in slices]
        return self.form.labels({name: torch.cat([part[name] for part in read]).to(self.device) for name in read[0]}, self.head)

    def mean(self, name: str) -> float | None:
        """Of a kept tensor over all tokens; None if this form keeps no such tensor."""
        parts = [self._open(path) for path in self._paths]
        if name not in parts[0].keys():  # noqa: SIM118 - safe_open is no mapping
            return None
        return float(torch.cat([part.get_tensor(name).flatten() for part in parts]).double().mean())

    def _slice(self, part: int, begin: int, end: int) -> dict[str, Tensor]:
        file = self._open(self._paths[part])
        return {name: file.get_slice(name)[begin:end] for name in file.keys() if name not in ("rows", "ends")}  # noqa: SIM118
