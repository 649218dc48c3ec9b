"""Scoring beside training, and what becomes of either where the other fails."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from kdray.cli.progress import Terminal
from kdray.run import _at_once, _await
from kdray.spec import InputError

WRONG = InputError("scores.json", "damaged", "remove it")


def run(train: Callable[[], None], score: Callable[..., None], raised: type[BaseException]) -> str:
    """What is said until the run raises."""
    said = io.StringIO()
    with Terminal(Console(file=said, width=200)) as progress, pytest.raises(raised):
        _at_once(train, score, progress)
    return said.getvalue()


def test_scoring_that_fails_is_told_at_once_and_ends_the_run_when_points_have_trained() -> None:
    trained = []

    def score(training: Callable[[], bool], stopped: Callable[[], bool]) -> None:
        raise WRONG

    said = run(lambda: trained.append("all"), score, InputError)
    assert trained == ["all"]
    assert said.splitlines() in ([], [f"scoring has stopped, points go on: {WRONG}"]), "it may come to its end first"


def test_a_run_that_is_interrupted_stops_scoring_and_says_nothing_of_it() -> None:
    def train() -> None:
        raise KeyboardInterrupt

    def score(training: Callable[[], bool], stopped: Callable[[], bool]) -> None:
        while not stopped():
            pass
        raise OSError("Ray is gone")

    assert run(train, score, KeyboardInterrupt) == ""


@pytest.mark.parametrize("made", [True, False])
def test_aligned_points_wait_for_the_answers_that_they_learn_from_or_for_the_end_of_scoring(
    made: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdray.run.LOOK", 0.01)
    answers, scored, failed, looks = SimpleNamespace(slug="answers"), threading.Event(), list[str](), list[int]()

    def missing(steps: list[Any]) -> list[Any]:
        looks.append(len(looks))
        if len(looks) == 3 and not made:
            scored.set()
        return [] if failed or (made and len(looks) > 3) else steps

    work: Any = SimpleNamespace(
        missing=missing, fail=lambda step, reason, quiet: failed.append(f"{step.slug}: {reason}")
    )
    points: Any = [SimpleNamespace(inputs=SimpleNamespace(pairs=answers))]
    _await(points, work, scored)
    assert failed == ([] if made else ["answers: scoring has stopped"])
    assert len(looks) >= 4
