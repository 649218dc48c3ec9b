"""Annotations that train no lens fail its step, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from kdray.spec.errors import InputError
from kdray.stages import lens


def test_annotations_of_one_kind_fail_the_step_and_not_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[tuple[Any, str]] = []

    @contextmanager
    def claim(steps: list[Any]) -> Iterator[list[tuple[Any, Any]]]:
        yield [(step, None) for step in steps]

    def refuse(step: Any, attempt: Any, work: Any) -> None:
        raise InputError("annotations", "only factual spans", "a classifier needs both")

    monkeypatch.setattr(lens, "_make", refuse)
    work: Any = SimpleNamespace(claim=claim, fail=lambda step, reason: failed.append((step, reason)))
    lens.lens(["a", "b"], work)  # type: ignore[list-item]
    assert failed == [(step, "annotations: only factual spans; a classifier needs both") for step in "ab"]
