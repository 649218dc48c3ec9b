"""DeepSpeed's ZeRO: stage 1 shards the optimiser's state, 2 gradients too, 3 weights too, each optionally held in main
memory.

The optimiser is PyTorch's AdamW, so that no extension has to be compiled and the result does not depend on the engine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from kdray.distill.student import Student
from kdray.spec import declare
from kdray.store import io
from kdray.train.engines import Ranks, exported
from kdray.train.optimiser import adamw
from kdray.train.settings import Settings

DECLARED = declare.Engine(version=1)
TAG, UNIVERSAL = "zero", "universal"


class DeepSpeed:
    keeps_casts = True  # ZeRO-3 lets go of them itself

    def __init__(
        self, student: Student, settings: Settings, ranks: Ranks, *, stage: Literal[1, 2, 3] = 2, offload: bool = False
    ) -> None:
        device = next(student.parameters()).device
        zero = _deepspeed(device)
        place = {"device": "cpu"} if offload else {"device": "none"}
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,  # micro-batches are counted here, see `expect`
            "gradient_clipping": settings.clip or 0.0,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": {"stage": stage, "offload_optimizer": place}
            | ({"offload_param": place} if stage == 3 else {}),
            "torch_autocast": {"enabled": settings.dtype == "bfloat16", "dtype": "bfloat16"},
        }
        self.engine, *_ = zero.initialize(model=student, optimizer=adamw(student, settings, fused=False), config=config)
        if stage == 3:  # the loss reads the head's weight without calling the head
            for parameter in student.model.head.parameters():
                zero.zero.register_external_parameter(student, parameter)
        self.student, self.stage, self._zero, self._settings = student, stage, zero, settings
        self.ranks, self.layout = ranks, f"deepspeed-{stage}"

    def __call__(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        return self.engine(*arguments)

    def expect(self, *, last: bool) -> None:
        self.engine.set_gradient_accumulation_boundary(last)

    def backward(self, total: Tensor) -> None:
        self.engine.backward(total)
        if not self.engine.is_gradient_accumulation_boundary():
            self.engine.step()  # moves nothing, but counts

    def step(self, lr: float) -> float:
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        self.engine.step()
        return float(self.engine.get_global_grad_norm())

    def state(self) -> dict[str, Any]:
        return {}

    def write(self, state: dict[str, Any], folder: Path, ranks: Ranks) -> None:
        # What is frozen comes from the model's folder; where it is quantised, the strict load would refuse its state.
        self.engine.save_checkpoint(str(folder), tag=TAG, exclude_frozen_parameters=True)

    def load(self, folder: Path) -> None:
        if len(list((folder / TAG).glob("*_optim_states.pt"))) == self.ranks.world:
            self.engine.load_checkpoint(str(folder), tag=TAG, load_module_strict=False)
        else:
            self._load_resharded(folder)

    def _load_resharded(self, folder: Path) -> None:
        """Put back what another number of ranks wrote, by way of DeepSpeed's universal checkpoint, a copy that rank 0
        makes.
        """
        whole = folder.with_name(f"{folder.name}-{UNIVERSAL}")
        if self.ranks.rank == 0:
            io.delete(whole)
            _convert(folder / TAG, whole / TAG)
        self.ranks.wait()
        optimiser = self.engine.optimizer.optimizer
        settings = [{key: value for key, value in group.items() if key != "params"} for group in optimiser.param_groups]
        self.engine._config.load_universal_checkpoint = True
        self.engine.load_checkpoint(str(whole), tag=TAG)
        self.engine._config.load_universal_checkpoint = False  # it would change what is saved
        for group, own in zip(optimiser.param_groups, settings, strict=True):
            group.update(own)  # under ZeRO-3 all have the first one's by now,
        for state in optimiser.state.values():
            state["step"] = state["step"].clone()  # and share one counter
        self.ranks.wait()
        if self.ranks.rank == 0:
            io.delete(whole)

    def weights(self) -> dict[str, Tensor]:
        found = {}
        for name, tensor in exported(self.student.model.whole, self._settings).items():
            with self._zero.zero.GatheredParameters([tensor], enabled=self.stage == 3):
                if self.ranks.rank == 0:
                    found[name] = tensor.detach().cpu().clone()
        return found


def _convert(shards: Path, whole: Path) -> None:
    from deepspeed.checkpoint.ds_to_universal import main

    with contextlib.redirect_stdout(None):
        main(
            argparse.Namespace(
                input_folder=str(shards),
                output_folder=str(whole),
                num_extract_workers=1,
                num_merge_workers=1,
                keep_temp_folder=False,
                strict=True,
                inject_missing_state=True,
            )
        )


def _deepspeed(device: torch.device) -> Any:
    """The library; on a CPU without its shared-memory communication, which it would compile for minutes."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed as library
    import deepspeed.ops

    if device.type == "cpu":
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return library
