"""The teacher beside the student, asked at every step: for checking the stored forms, and for small teachers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from kdray.artifacts.rows import Rows
from kdray.data.collate import collate
from kdray.distill.labels import HiddenLabels
from kdray.models.adapters import load_quantised
from kdray.models.head import ResponseModel
from kdray.models.load import load_folder
from kdray.spec import declare

DECLARED = declare.Form(version=1, asked=True)


class Online:
    def open(
        self,
        folder: Path,
        rows: Rows,
        device: torch.device | str,
        compute: torch.dtype,
        dtype: torch.dtype,
        *,
        quantise: str | None = None,
    ) -> OnlineTeacher:
        """The teacher in `folder`, its backbone in `compute`, or with quantised layers, and its head in `dtype`."""
        if quantise:
            quantised = load_quantised(folder, device, compute, quantise, "soft_labels.quantise")
            return OnlineTeacher(ResponseModel(quantised), rows, dtype)
        model, _ = load_folder(folder, compute)
        return OnlineTeacher(ResponseModel(model).to(device), rows, dtype)


class OnlineTeacher:
    """Soft labels of any rows, by a pass of the teacher over them."""

    temperature = 1.0

    def __init__(self, teacher: ResponseModel, rows: Rows, dtype: torch.dtype) -> None:
        self.teacher, self.rows = teacher.requires_grad_(False).eval(), rows
        self.head = teacher.head.as_type(dtype)

    @property
    def width(self) -> int:
        return self.head.linear.out_features

    def read(self, rows: Sequence[int]) -> HiddenLabels:
        return self.ask(self.rows, rows)

    @torch.no_grad()
    def ask(self, rows: Rows, chosen: Sequence[int]) -> HiddenLabels:
        device = next(self.teacher.parameters()).device
        batch = collate(rows, chosen).to(device)
        with torch.autocast(device.type, enabled=False):  # it computes in its own type, whatever its student does
            return HiddenLabels(self.teacher.hidden(batch.input_ids, batch.attention_mask, batch.positions), self.head)
