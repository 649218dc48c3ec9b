"""Run a function in several processes at once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

CONTEXT = multiprocessing.get_context("fork")  # a new interpreter would take longer to start than the test takes


def in_processes(count: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """The answers of `function(i, *args)` from `count` processes that begin together, in the order of i."""
    barrier, answers = CONTEXT.Barrier(count), CONTEXT.Queue()

    def run(i: int) -> None:
        barrier.wait()
        answers.put((i, function(i, *args)))

    processes = [CONTEXT.Process(target=run, args=(i,), daemon=True) for i in range(count)]
    for process in processes:
        process.start()
    found = sorted(answers.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    return [answer for _, answer in found]
