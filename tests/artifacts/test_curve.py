"""A point's metrics over its steps, while they are written and when they are done; what a training attempt notes beside
them.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from kdray.artifacts.curve import (
    CURVE,
    append_step,
    count_steps,
    curve_file,
    read_curve,
    read_growing_curve,
    write_curve,
)
from kdray.artifacts.notes import ENDED, START, ended_early, note_end, note_start, read_start
from kdray.store import Store
from tests.artifacts.conftest import KEY, Make, refused

STEP = {"step": 1, "examples": 2, "loss": 1.0, "ce": 1.0, "tokens": 30}


def steps(count: int) -> list[dict[str, float]]:
    return [STEP | {"step": i + 1, "examples": 2 * i + 2} for i in range(count)]


def test_a_curve_grows_and_the_furthest_attempt_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert read_growing_curve(tmp_path / "absent") == []
    first, second = store.begin(KEY, {}), store.begin(KEY, {})
    write_curve(first.path, steps(3))
    write_curve(second.path, steps(1))
    assert (count_steps(second.path), count_steps(tmp_path)) == (1, 0)
    for step in steps(4)[1:]:
        append_step(second.path, step)
    with curve_file(second.path).open("a") as file:
        file.write('{"step": 5, "exa')  # is being written
    assert read_growing_curve(first.folder) == steps(4)


def test_the_file_is_the_one_of_stores_of_today(tmp_path: Path) -> None:
    write_curve(tmp_path, [])
    append_step(tmp_path, STEP | {"loss": math.nan})
    assert (
        tmp_path / "metrics.jsonl"
    ).read_text() == '{"step": 1, "examples": 2, "loss": NaN, "ce": 1.0, "tokens": 30}\n'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1]", "line 3 holds no numbers by name"),
        ('{"step": "1"}', "line 3 holds no numbers by name"),
        ('{"step": 3, "examples": 6}', "line 3 has no 'tokens'"),
        ('{"step": 3, "exa', "Unterminated string .*"),
    ],
)
def test_a_line_that_is_no_step_is_said(tmp_path: Path, line: str, reason: str) -> None:
    attempt = Store(tmp_path).begin(KEY, {})
    write_curve(attempt.path, steps(2))
    with curve_file(attempt.path).open("a") as file:
        file.write(f"{line}\n")
    refused(attempt.path / CURVE, reason, lambda: read_growing_curve(attempt.folder))


def test_a_finished_curve_is_whole(made: Make) -> None:
    artifact = made(lambda folder: write_curve(folder, steps(3)))
    path = artifact.path / CURVE
    assert read_curve(artifact) == steps(3)
    write_curve(artifact.path, steps(2))
    refused(path, "not what was sealed", lambda: read_curve(artifact))
    path.unlink()
    refused(path, "missing", lambda: read_curve(artifact))


def test_what_an_attempt_notes(tmp_path: Path) -> None:
    attempt = Store(tmp_path).begin(KEY, {})
    assert (read_start(attempt.path), ended_early(attempt.path)) == ({}, None)
    note_start(attempt.path, {"workers": 2})
    note_end(attempt.path, "loss nan")
    assert (read_start(attempt.path), ended_early(attempt.path)) == ({"workers": 2}, "loss nan")
    for name, read in ((START, read_start), (ENDED, ended_early)):
        (attempt.path / name).write_text("[")
        refused(attempt.path / name, ".+", lambda read=read: read(attempt.path))
