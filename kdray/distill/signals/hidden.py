"""The teacher's last hidden state after the final norm, with its output head kept once: exact up to rounding.

A token costs 2 d bytes in bfloat16 (1,152 for d = 576) where full logits cost 2 V (98,304 for V = 49,152).
Logits are recomputed as head(hidden). Parts are safetensors files, read by slice through a memory map.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdray.models.head import Head

VERSION = 1
HEAD, HEAD_FACTS = "head.safetensors", "head.json"


def write_head(head: Head, folder: Path) -> None:
    """Keep the teacher's output head in its own precision."""
    linear = head.linear
    tensors = {"weight": linear.weight.detach().cpu().contiguous()}
    if linear.bias is not None:
        tensors["bias"] = linear.bias.detach().cpu().contiguous()
    save_file(tensors, folder / HEAD)
    (folder / HEAD_FACTS).write_text(json.dumps({"scale": head.scale, "softcap": head.softcap}))


def write_part(path: Path, rows: Sequence[int], states: Sequence[Tensor], dtype: torch.dtype) -> None:
    """Keep the hidden states [R_i, d] of the response tokens of each of `rows` (ascending)."""
    lengths = torch.tensor([len(state) for state in states])
    ends = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    save_file({"rows": torch.tensor(list(rows)), "ends": ends, "hidden": torch.cat(list(states)).to(dtype).contiguous()}, path)


class hidden:
    """Soft labels in a folder of parts; `logits(rows)` reads only what it is asked for."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        tensors = load_file(folder / HEAD)
        facts = json.loads((folder / HEAD_FACTS).read_text())
        linear = nn.Linear(*reversed(tensors["weight"].shape), bias="bias" in tensors, dtype=tensors["weight"].dtype)
        linear.load_state_dict(tensors)
        self.head = Head(linear, facts["scale"], facts["softcap"]).requires_grad_(False).to(device)
        self.device = device
        self._parts = []
        for path in sorted(folder.glob("part-*.safetensors")):
            with safe_open(path, "pt") as part:
                rows, ends = part.get_tensor("rows").tolist(), part.get_tensor("ends").tolist()
            if rows:
                self._parts.append((rows[0], path, {row: (ends[i], ends[i + 1]) for i, row in enumerate(rows)}))
        self._parts.sort(key=lambda part: part[0])
        self._first = [first for first, _, _ in self._parts]

    @torch.no_grad()
    def logits(self, rows: Sequence[int]) -> Tensor:
        """The teacher's logits [N, V] at the response tokens of `rows`, one row after the other."""
        states = [self._states(row) for row in rows]
        if not states:
            return torch.zeros(0, self.head.linear.out_features, device=self.device)
        weight = self.head.linear.weight
        return self.head(torch.cat(states).to(weight.device, weight.dtype))

    def _states(self, row: int) -> Tensor:
        _, path, spans = self._parts[bisect.bisect_right(self._first, row) - 1]
        begin, end = spans[row]
        with safe_open(path, "pt") as part:
            return part.get_slice("hidden")[begin:end]
