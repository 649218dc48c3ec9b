"""In which order jobs begin, and what their bars count."""

from __future__ import annotations

import dataclasses
from typing import Any

from kdray.orchestration.job import Job
from kdray.orchestration.watch import longest_first, steps_of
from kdray.train.settings import Settings


def job(steps: float) -> Job:
    settings: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(Settings))
    unset: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(Job))
    return Job(**unset | {"settings": Settings(**settings | {"unit": "steps", "length": steps})})


def test_the_longest_begins_and_equals_keep_their_order() -> None:
    jobs = {"short": job(3.0), "long": job(40.0), "like short": job(3.0)}
    assert list(longest_first(jobs).items()) == [(name, jobs[name]) for name in ("long", "short", "like short")]
    assert steps_of(jobs["long"]) == 40
