"""What would only happen again ends a point at its first start."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kdray.artifacts.notes import ended_early
from kdray.models.load import load_folder
from kdray.orchestration import worker
from kdray.store import Key, Store
from tests.tiny import write_model, write_rows
from tests.train.test_loop import SETTINGS


def test_an_engine_that_is_not_installed_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "rows", load_folder(write_model(tmp_path / "student", layers=1))[1])
    attempt = Store(tmp_path / "store").begin(Key("train", "point", "0" * 12), {})
    job: Any = SimpleNamespace(
        attempt=attempt,
        model=tmp_path / "student",
        data=tmp_path / "rows",
        settings=SETTINGS,
        soft_labels=(),
        engine={"name": "deepspeed", "params": {}},
        gradient_checkpointing=False,
        micro_batch=None,
        threads=torch.get_num_threads(),
    )
    context = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(worker.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(worker.ray.train.torch, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    worker.train_job(job)
    assert "deepspeed" in str(ended_early(attempt.path))
