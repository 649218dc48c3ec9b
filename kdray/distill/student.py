"""The model that is trained, together with its loss: one forward pass gives the objective's sums."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kdray.data.collate import Batch
from kdray.distill.across import SomeLabels, sums_of_some
from kdray.distill.fused import fused_sums
from kdray.distill.labels import SoftLabels
from kdray.distill.objective import Objective
from kdray.distill.simpo import SimPO
from kdray.models.head import ResponseModel
from kdray.models.packed import enable_packing
from kdray.spec.errors import InputError


class Student(nn.Module):
    """Wraps the model so that an engine (DDP, FSDP, DeepSpeed) sees every weight used inside one forward pass."""

    def __init__(self, model: ResponseModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        objective: Objective | SimPO,
        batch: Batch,
        soft: SoftLabels | SomeLabels | None = None,
        scale: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """(total x scale, [hard, soft, uniform]), summed over the response tokens of `batch`; `soft` has the same
        tokens, or some of them. By `SimPO` what that gives, of pairs and without soft labels.
        """
        hidden = self.model.hidden(
            batch.input_ids, batch.attention_mask, batch.positions, batch.position_ids, batch.decoder_input_ids
        )
        if isinstance(objective, SimPO):
            return objective.sums(self.model.head, hidden, batch, scale)
        if isinstance(soft, SomeLabels):
            sums = sums_of_some(objective, self.model.head, hidden, batch.labels, soft, scale)
        else:
            sums = fused_sums(objective, self.model.head, hidden, batch.labels, soft, scale)
        return sums.total, torch.stack([sums.hard, sums.soft, sums.uniform])

    def pack(self, autocast: torch.dtype | None) -> None:
        """Switch to attention for packed rows, as they run under `autocast`.

        Raises:
            InputError: the model takes none.
        """
        if self.model.start is not None:
            found = f"{type(self.model.whole).__name__} takes no packed rows: its encoder reads the prompts apart"
            raise InputError("train.packing", found, "pad them")
        enable_packing(self.model.backbone, autocast)
