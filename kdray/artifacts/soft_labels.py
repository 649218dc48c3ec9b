"""Soft labels on disk: parts of rows as safetensors files, read by slice through a memory map, and the teacher's output
head.

A part, `part-00012-<checksum>.safetensors`, holds its rows' numbers, where each row's tokens end, and the tensors of
the form, one row a token; in its metadata are facts about it. The head lies in `head.safetensors` and, what is no
tensor of it, `head.json`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from kdray.artifacts.files import damaged, is_number, read_object, reading, require_sealed, telling
from kdray.artifacts.parts import PREFIX, all_parts, write_part

SUFFIX = ".safetensors"
HEAD, HEAD_FACTS = "head.safetensors", "head.json"
ROWS, ENDS = "rows", "ends"  # in a part, beside the tensors of the form
OPEN_PARTS = 64


@dataclass(frozen=True)
class KeptHead:
    """The tensors of a linear layer, in the teacher's precision, and what is done to its products; see
    `kdray.models.head.Head`.
    """

    tensors: Mapping[str, Tensor]
    scale: float
    softcap: float | None


def write_labels(
    folder: Path, index: int, rows: Sequence[int], kept: Sequence[Mapping[str, Tensor]], **facts: float
) -> None:
    """Keep what a form keeps of each of `rows` (tensors of one row a token) as one part, with facts about it."""
    ends = torch.tensor([0, *(len(next(iter(row.values()))) for row in kept)]).cumsum(0)
    tensors = {name: torch.cat([row[name] for row in kept]).cpu().contiguous() for name in kept[0]}
    metadata = {name: repr(value) for name, value in facts.items()}
    write_part(
        folder,
        index,
        SUFFIX,
        lambda path: save_file({ROWS: torch.tensor(list(rows)), ENDS: ends, **tensors}, path, metadata),
    )


def write_kept_head(folder: Path, head: KeptHead) -> None:
    save_file({name: tensor.cpu().contiguous() for name, tensor in head.tensors.items()}, folder / HEAD)
    (folder / HEAD_FACTS).write_text(json.dumps({"scale": head.scale, "softcap": head.softcap}))


def has_head(folder: Path) -> bool:
    """Whether a head is kept.

    Raises:
        InputError: it is not there any more.
    """
    require_sealed(folder, lambda name: name in (HEAD, HEAD_FACTS))
    return (folder / HEAD).is_file()


def read_kept_head(folder: Path) -> KeptHead:
    """The head that `write_kept_head` kept.

    Raises:
        InputError: one of its files is missing or damaged.
    """
    with reading(folder / HEAD, SafetensorError):
        tensors = load_file(folder / HEAD)
        if "weight" not in tensors or tensors.keys() - {"weight", "bias"}:
            raise ValueError("no weights of a linear layer")
    path, facts = folder / HEAD_FACTS, read_object(folder / HEAD_FACTS)
    with reading(path):
        scale, softcap = facts["scale"], facts["softcap"]
    if not is_number(scale) or not (softcap is None or is_number(softcap)):
        raise damaged(path, "scale and softcap are no numbers")
    return KeptHead(tensors, scale, softcap)


def read_fact(folder: Path, name: str) -> list[float]:
    """A fact about each of the parts in a folder.

    Raises:
        InputError: a part is missing or damaged, or has no such fact.
    """
    found = []
    for path in all_parts(folder):
        with reading(path, SafetensorError), safe_open(path, "pt") as part:
            found.append(float((part.metadata() or {})[name]))
    return found


class KeptLabels:
    """The tensors that a form keeps of rows, in a folder; only what is asked for is read, of parts that are whole.

    Raises:
        InputError: a part is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = all_parts(folder)
        self._open = functools.lru_cache(OPEN_PARTS)(_open)
        numbers, spans = [np.empty(0, dtype=np.int64)], [np.empty((0, 3), dtype=np.int64)]
        for i, path in enumerate(self._paths):
            with telling(path, SafetensorError), safe_open(path, "pt") as part:  # what else it holds, once it is wanted
                rows, ends = part.get_tensor(ROWS).numpy(), part.get_tensor(ENDS).numpy()
                numbers.append(rows)
                spans.append(np.stack([np.full(len(rows), i), ends[:-1], ends[1:]], 1))
        found = np.concatenate(numbers)
        if not len(found) or not np.array_equal(np.sort(found), np.arange(len(found))):
            raise damaged(folder / f"{PREFIX}*{SUFFIX}", "some rows have no soft labels")
        self._spans = np.concatenate(spans)[np.argsort(found)]  # by row: part, first token, end

    def width(self, name: str) -> int | None:
        """The numbers a token of a tensor; None where no such tensor is kept."""
        part = self._open(self._paths[0])
        return part.get_slice(name).get_shape()[1] if name in _names(part) else None

    def read(self, rows: Sequence[int]) -> dict[str, Tensor]:
        """The tensors at the response tokens of `rows`, one row after the other."""
        read = [self._slice(*span) for span in [self._spans[row] for row in rows] or [(0, 0, 0)]]
        return {name: torch.cat([part[name] for part in read]) for name in read[0]}

    def whole(self, name: str) -> Tensor | None:
        """A tensor of all tokens, flat; None where no such tensor is kept."""
        parts = [self._open(path) for path in self._paths]
        return torch.cat([part.get_tensor(name).flatten() for part in parts]) if name in _names(parts[0]) else None

    def _slice(self, part: int, begin: int, end: int) -> dict[str, Tensor]:
        file = self._open(self._paths[part])
        return {name: file.get_slice(name)[begin:end] for name in _names(file)}


def _open(path: Path) -> Any:
    with reading(path, SafetensorError):
        return safe_open(path, "pt")


def _names(part: Any) -> list[str]:
    """The tensors of the form."""
    return [name for name in part.keys() if name not in (ROWS, ENDS)]  # noqa: SIM118 - safe_open is no mapping
