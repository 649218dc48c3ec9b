"""What is given to Tune, in which order."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from kdray.orchestration.job import Job
from kdray.stages.train import in_order
from kdray.store import Attempt, Key
from kdray.train.settings import Settings


def job(name: str, steps: float) -> Job:
    settings: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(Settings))
    unset: dict[str, Any] = dict.fromkeys(field.name for field in dataclasses.fields(Job))
    attempt = Attempt(Key("train", name, f"id of {name}"), Path(name), "attempt-001")
    return Job(**unset | {"settings": Settings(**settings | {"unit": "steps", "length": steps}), "attempt": attempt})


def test_the_dearest_point_is_first_and_without_a_price_that_with_the_most_steps() -> None:
    jobs = {name: job(name, steps) for name, steps in (("few steps", 3.0), ("many steps", 40.0), ("like few", 3.0))}
    assert list(in_order(jobs, {})) == ["many steps", "few steps", "like few"]
    prices = {"id of few steps": 1.0, "id of many steps": 2.0, "id of like few": 5.0}
    assert list(in_order(jobs, prices)) == ["like few", "many steps", "few steps"]
    assert list(in_order(jobs, {"id of like few": 5.0})) == ["many steps", "few steps", "like few"], (
        "one price of three"
    )
