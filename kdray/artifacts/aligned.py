"""Which tokens of two tokenizations of the same rows begin at the same place, and by what token the student begins what
a teacher's token writes: `aligned.safetensors`, beside the rows in the teacher's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kdray.artifacts.files import reading

ALIGNED = "aligned.safetensors"
NAMES, BEGIN = {"ours", "theirs", "ends", "first"}, "begin"


def write_aligned(
    folder: Path, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], first: Sequence[int], begin: int = 0
) -> None:
    """Keep of every row the numbers of the student's and the teacher's response tokens that begin together; by id of
    the teacher's tokens the student's first token of the same text, -1 for none; and how many of the student's tokens
    stand before the text of every response.
    """
    ends = torch.tensor([0, *(len(ours) for ours, _ in pairs)]).cumsum(0)
    ours, theirs = (
        torch.tensor([number for some in side for number in some], dtype=torch.int32)
        for side in ([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    )
    tensors = {"ours": ours, "theirs": theirs, "ends": ends, "first": torch.tensor(first, dtype=torch.int32)}
    save_file(tensors | ({BEGIN: torch.tensor(begin)} if begin else {}), folder / ALIGNED)


class Aligned:
    """What `write_aligned` kept.

    Raises:
        InputError: the file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        with reading(folder / ALIGNED, SafetensorError):
            tensors = load_file(folder / ALIGNED)
            begin = tensors.pop(BEGIN, torch.tensor(0))
            if tensors.keys() != NAMES or len(tensors["ours"]) != len(tensors["theirs"]) or begin.ndim:
                raise ValueError("other tensors than those of aligned tokens")
        self.first: Tensor = tensors["first"].long()
        self.begin = int(begin)
        self._pairs, self._ends = torch.stack([tensors["ours"], tensors["theirs"]]).long(), tensors["ends"].tolist()

    def pairs(self, row: int) -> Tensor:
        """[2, n] numbers of a row's response tokens: the student's, and the teacher's that begin with them."""
        return self._pairs[:, self._ends[row] : self._ends[row + 1]]
