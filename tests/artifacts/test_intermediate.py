"""What stages keep as parts until they put it together: responses, answers to a benchmark's requests, lookback ratios
of windows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdray.artifacts.parts import parts
from kdray.artifacts.requests import read_requests, write_requests
from kdray.artifacts.responses import read_responses, write_responses
from kdray.artifacts.windows import read_windows, write_windows
from tests.artifacts.conftest import refused

ANSWERED = [{"request": i, "loglikelihood": -0.5, "greedy": True, "text": None, "error": None} for i in range(2)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "step" / "attempt-001"
    path.mkdir(parents=True)
    return path


def test_responses_come_back_in_the_order_of_their_rows(folder: Path) -> None:
    write_responses(folder, 0, [5, 1], [[50, 51], []])
    write_responses(folder, 1, range(2, 4), [[20], [30]])
    assert read_responses(folder).to_pylist() == [[], [20], [30], [50, 51]]


def test_answers_to_requests_come_back(folder: Path) -> None:
    write_requests(folder, 1, [ANSWERED[1] | {"loglikelihood": None, "greedy": None, "error": "too long"}])
    write_requests(folder, 0, [ANSWERED[0]])
    found = read_requests(folder)
    assert [row["request"] for row in found] == [0, 1]
    assert (found[0], found[1]["error"]) == (ANSWERED[0], "too long")


def test_windows_come_back_in_the_order_of_the_parts(folder: Path) -> None:
    for part in (1, 0):
        write_windows(folder, part, np.full((2, 3), float(part)), np.array([0, 1]), np.array([part, part]))
    features, labels, rows = read_windows(folder)
    assert (features[:, 0].tolist(), labels.tolist(), rows.tolist()) == ([0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 1, 1])


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (lambda folder: write_responses(folder, 0, [1], [[2]]), read_responses),
        (lambda folder: write_requests(folder, 0, ANSWERED), read_requests),
        (lambda folder: write_windows(folder, 0, np.ones((1, 2)), np.ones(1), np.ones(1)), read_windows),
    ],
)
def test_a_damaged_part_is_said(folder: Path, write: Callable[[Path], None], read: Callable[[Path], Any]) -> None:
    write(folder)
    (path,) = parts(folder).values()
    path.write_bytes(path.read_bytes()[:-5])
    refused(path, ".+", lambda: read(folder))
