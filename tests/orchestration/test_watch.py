"""What the bars of jobs count."""

from __future__ import annotations

import dataclasses
from typing import Any

from kdray.orchestration.job import Job
from kdray.orchestration.watch import job_steps
from kdray.train.settings import Settings


def job(steps: float) -> Job:
    settings: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(Settings))
    unset: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(Job))
    return Job(**unset | {"settings": Settings(**settings | {"unit": "steps", "length": steps})})


def test_the_steps_of_a_job_are_those_that_it_is_given() -> None:
    assert job_steps(job(40.0)) == 40
