"""Scores and the rows behind them."""

from __future__ import annotations

import json

import pytest

from kdray.artifacts.scores import (
    DETAILS,
    FACTUAL,
    ROWS,
    SCORES,
    Score,
    read_details,
    read_factual,
    read_rows,
    read_scores,
    rows_file,
    score_files,
    write_details,
    write_factual,
    write_scores,
)
from tests.artifacts.conftest import Make, refused

FULL = {"value": 1.5, "stderr": 0.0, "n": 8}


def test_scores_and_rows_come_back(made: Make) -> None:
    rows = [{"example": 0, "ce": 1.5, "error": None}, {"example": 1, "ce": None, "error": "lost"}, {"example": 2}]
    artifact = made(lambda folder: write_scores(folder, {"kl": FULL, "ce": FULL}, rows))
    assert read_scores(artifact.path) == {"ce": Score(1.5, 0.0, 8), "kl": Score(1.5, 0.0, 8)}
    whole = {name: [row.get(name) for row in rows] for name in rows[0]}
    assert read_rows(artifact.path, ["example"], ["ce", "absent"]).to_pydict() == {
        name: whole[name] for name in ("example", "ce")
    }
    assert [path.name for path in score_files(artifact.path)] == [SCORES, ROWS]
    assert (read_factual(artifact.path), read_details(artifact.path)) == ({}, {})


def test_the_file_is_the_one_of_stores_of_today(made: Make) -> None:
    artifact = made(lambda folder: write_scores(folder, {"kl": FULL, "ce": FULL}, []))
    one = '{\n  "n": 8,\n  "stderr": 0.0,\n  "value": 1.5\n }'
    assert (artifact.path / "scores.json").read_text() == f'{{\n "ce": {one},\n "kl": {one}\n}}\n'


@pytest.mark.parametrize(
    "wrong",
    [1, None, [1.5, 0.0, 8], {"value": 1.5, "n": 8}, FULL | {"p": 1}, FULL | {"value": "1.5"}, FULL | {"n": True}],
)
def test_a_score_that_lacks_a_number_is_said(made: Make, wrong: object) -> None:
    artifact = made(lambda folder: (folder / SCORES).write_text(json.dumps({"kl": FULL, "ce": wrong})))
    refused(artifact.path / SCORES, "'ce' needs the numbers value, stderr, n", lambda: read_scores(artifact.path))


def test_whatever_is_missing_or_cut_off_is_said(made: Make) -> None:
    def write(folder):
        write_scores(folder, {"ce": FULL}, [{"example": 0}])
        write_factual(folder, {"drifted": True})
        write_details(folder, {"failed": 1})

    artifact = made(write)
    assert (read_factual(artifact.path), read_details(artifact.path)) == ({"drifted": True}, {"failed": 1})
    refused(artifact.path / ROWS, "no column 'gold'", lambda: read_rows(artifact.path, ["gold"]))
    for name, read in ((SCORES, read_scores), (FACTUAL, read_factual), (DETAILS, read_details), (ROWS, rows_file)):
        path = artifact.path / name
        path.write_bytes(path.read_bytes()[:-3])
        refused(path, ".+", lambda read=read: read(artifact.path))
        path.unlink()
        refused(path, "missing", lambda read=read: read(artifact.path))
