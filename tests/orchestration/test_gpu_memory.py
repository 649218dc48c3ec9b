"""How large GPUs are, by a stand-in for their driver's command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kdray.orchestration.cluster import _gpu_memory, smallest_gpu


def says(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an `nvidia-smi` in front of any other, which answers this question alone."""
    command = folder / "nvidia-smi"
    asked = "--query-gpu=memory.total --format=csv,noheader,nounits"
    command.write_text(f"#!/bin/sh\n[ \"$*\" = '{asked}' ] || exit 2\nprintf '{text}'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_the_smallest_of_a_node_counts_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says(tmp_path, r"81559\n24564\n", monkeypatch)
    assert _gpu_memory() == 24564 * 1024**2


def test_a_driver_that_does_not_answer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    says(tmp_path, r"[N/A]\n", monkeypatch)
    with pytest.raises(ValueError, match="N/A"):
        _gpu_memory()
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    with pytest.raises(subprocess.CalledProcessError):
        _gpu_memory()


@pytest.mark.ray
@pytest.mark.slow
def test_it_is_known_while_another_run_has_every_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    says(tmp_path, r"81559\n", monkeypatch)
    ray.init(address="local", num_cpus=1, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:

        class Holding:
            def gpus(self) -> list[str]:
                return ray.get_runtime_context().get_accelerator_ids()["GPU"]

        make: Any = ray.remote(num_gpus=1, num_cpus=0)(Holding)
        other = make.remote()
        assert ray.get(other.gpus.remote()) == ["0"]
        assert smallest_gpu([ray.nodes()[0]["NodeID"]]) == 81559 * 1024**2
        says(tmp_path, "", monkeypatch)
        assert smallest_gpu([ray.nodes()[0]["NodeID"]]) is None
    finally:
        ray.shutdown()
