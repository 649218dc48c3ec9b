"""Time and memory on either kind of device: process CPU time and peak RSS, or wall time and allocated GPU memory."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import torch


def now(device: str) -> float:
    """Seconds: of this process's CPU time, or of the wall, once the GPU has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def peak_rss() -> int:
    """Bytes of this process until now."""
    # Not getrusage: what it gives a child begins at its parent's peak.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


class GpuMemory:
    """Bytes of GPU memory that were allocated at once since this was made, beyond what was allocated then."""

    def __init__(self) -> None:
        torch.cuda.init()
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self.before = torch.cuda.memory_allocated()

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated() - self.before
