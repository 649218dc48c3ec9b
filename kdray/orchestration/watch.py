"""Bars of running training jobs, from the curves that their first workers append to."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from kdray.artifacts.curve import count_steps
from kdray.artifacts.rows import Rows
from kdray.orchestration.job import Job
from kdray.orchestration.work import Work
from kdray.train.order import Order

TICK = 2.0  # seconds between looks


@contextlib.contextmanager
def watch(title: str, jobs: list[Job], work: Work) -> Iterator[None]:
    """Show the jobs' steps, and mirror their curves, from a thread that reads what rank 0 appends."""
    total = sum(map(job_steps, jobs))
    stop = threading.Event()
    with work.progress.bar(title, total, "steps") as bar:

        def look() -> None:
            while not stop.wait(TICK):
                bar.set(sum(count_steps(job.attempt.path) for job in jobs))
                work.after()

        thread = threading.Thread(target=look, name="kdray-watch", daemon=True)
        thread.start()
        try:
            yield
            bar.set(sum(count_steps(job.attempt.path) for job in jobs))
        finally:
            stop.set()
            thread.join()


def job_steps(job: Job) -> int:
    """Optimiser steps of the whole job."""
    if job.settings.unit == "steps":
        return int(job.settings.length)
    return Order(Rows(job.data).train, job.settings.batch, job.settings.seed).steps(job.settings.length)
