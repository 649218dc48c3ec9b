"""A core of this machine as a card: what it does a second in passes like those of training, while all others do the
same, and how long a process takes to start.

Seconds are of the cores' own time: what else runs on the machine meanwhile changes little.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn import functional

from kdray.cost.cards import CORE, Card
from kdray.cost.decoder import FLOAT32

HEADS, HEAD, INNER, TOKENS = 9, 64, 1536, 512  # of a layer like those of a model that CPUs can train
WIDTH = HEADS * HEAD
SHAPES = [(WIDTH, WIDTH)] * 4 + [(WIDTH, INNER)] * 2 + [(INNER, WIDTH)]
# Of a pass forward and backward, of which a mask leaves out half of all attention.
OPERATIONS = 3 * TOKENS * (2 * sum(one * other for one, other in SHAPES) + 4 * WIDTH * TOKENS / 2)
TRAINED = 4_000_000  # weights for AdamW: more than caches hold
MOVED = 20 * FLOAT32  # bytes a weight of a step of AdamW with clipping, as `time.of_training_step` counts them
LONG = 0.5  # seconds of each measurement
LAUNCH = 0.1e-3  # seconds of Python a layer; on a CPU it is products that take long


def measured(worker: str) -> Card:
    """A core, measured in some ten seconds on an idle machine; `worker` is the module that a worker imports."""
    slow = _rate(lambda: _Layer(torch.float32).work)
    fast = _rate(lambda: _Layer(torch.bfloat16).work)
    moved = _rate(_optimiser)
    return Card(
        CORE,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / cores(),
        products=fast * OPERATIONS,
        bandwidth=moved * MOVED * TRAINED,
        link=moved * MOVED * TRAINED,
        float32=fast / slow,
        launch=LAUNCH,
        training_launch=LAUNCH,
        start=_start(worker),
        unit="core",
    )


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))


class _Layer:
    """A decoder's layer, forward and backward over a sequence."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.linear = [nn.Linear(*shape, bias=False, dtype=dtype) for shape in SHAPES]
        self.norm = nn.RMSNorm(WIDTH, dtype=dtype)
        self.inputs = torch.randn(1, TOKENS, WIDTH, dtype=dtype)

    def work(self) -> None:
        query, key, value, out, gate, up, down = self.linear
        inputs = self.inputs.detach().requires_grad_()
        normed = self.norm(inputs)
        queries, keys, values = (_heads(linear(normed)) for linear in (query, key, value))
        seen = functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        between = inputs + out(seen.transpose(1, 2).flatten(2))
        normed = self.norm(between)
        last = between + down(functional.silu(gate(normed)) * up(normed))
        last.sum().backward()
        for linear in self.linear:
            linear.weight.grad = None


def _heads(tokens: Tensor) -> Tensor:
    return tokens.unflatten(-1, (HEADS, HEAD)).transpose(1, 2)


def _optimiser() -> Callable[[], None]:
    """A step of AdamW after clipping, as training takes it."""
    weights = nn.Parameter(torch.zeros(TRAINED))
    weights.grad = torch.ones(TRAINED)
    optimiser = torch.optim.AdamW([weights])

    def work() -> None:
        nn.utils.clip_grad_norm_([weights], 1.0)
        optimiser.step()

    return work


def _start(worker: str) -> float:
    """Seconds that a process takes to import a module.

    Raises:
        subprocess.CalledProcessError: it cannot be imported.
    """
    command = [sys.executable, "-c", f"import {worker}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _rate(make: Callable[[], Callable[[], object]]) -> float:
    """How often a second a core does the work that `make` gives, all of them at once, each with its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(cores()) as pool:
            return min(pool.map(_timed, [make() for _ in range(cores())]))
    finally:
        torch.set_num_threads(threads)


def _timed(work: Callable[[], object]) -> float:
    work()  # the first one also allocates
    begun, count = time.thread_time(), 0
    while (now := time.thread_time()) - begun < LONG:
        work()
        count += 1
    return count / (now - begun)
