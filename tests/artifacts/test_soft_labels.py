"""Soft labels on disk: rows by number, whatever part they are in; what is gone or damaged is said.

Forms are tried in tests/distill.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from kdray.artifacts.parts import PREFIX, all_parts
from kdray.artifacts.soft_labels import (
    HEAD,
    HEAD_FACTS,
    SUFFIX,
    KeptHead,
    KeptLabels,
    has_head,
    read_fact,
    read_kept_head,
    write_kept_head,
    write_labels,
)
from tests.artifacts.conftest import Make, refused

WEIGHT = torch.arange(6.0).reshape(3, 2)


def kept(row: int) -> dict[str, torch.Tensor]:
    """Of a row with one token more than its number."""
    return {"hidden": torch.full((row + 1, 2), float(row))}


def write(folder: Path) -> None:
    write_labels(folder, 0, [3, 0], [kept(3), kept(0)], error=0.5)
    write_labels(folder, 1, [1, 2], [kept(1), kept(2)], error=0.25)
    write_kept_head(folder, KeptHead({"weight": WEIGHT}, 2.0, None))


def test_rows_come_back_in_the_order_asked_for(made: Make) -> None:
    folder = made(write).path
    labels = KeptLabels(folder)
    assert labels.read([2, 0, 3])["hidden"][:, 0].tolist() == [2, 2, 2, 0, 3, 3, 3, 3]
    assert labels.read([])["hidden"].shape == (0, 2)
    whole = labels.whole("hidden")
    assert whole is not None
    assert len(whole) == 2 * (1 + 2 + 3 + 4)
    assert (labels.width("hidden"), labels.width("logits"), labels.whole("tail")) == (2, None, None)
    assert read_fact(folder, "error") == [0.5, 0.25]
    head = read_kept_head(folder)
    assert (head.scale, head.softcap, head.tensors["weight"].tolist()) == (2.0, None, WEIGHT.tolist())
    assert (folder / HEAD_FACTS).read_text() == '{"scale": 2.0, "softcap": null}'  # as stores of today have it


def test_a_row_without_soft_labels_is_said(tmp_path: Path) -> None:
    """It was read as a row without a token, so that its neighbours' labels stood at its tokens."""
    folder = tmp_path / "soften" / "attempt-001"
    folder.mkdir(parents=True)
    write_labels(folder, 1, [1, 2], [kept(1), kept(2)])
    refused(folder / f"{PREFIX}*{SUFFIX}", "some rows have no soft labels", lambda: KeptLabels(folder))


def test_a_part_or_a_head_that_is_gone_is_said(made: Make) -> None:
    artifact = made(write)
    path = all_parts(artifact.path)[0]
    whole = path.read_bytes()
    path.unlink()
    refused(path, "missing", lambda: KeptLabels(artifact.path))
    refused(path, "missing", lambda: read_fact(artifact.path, "error"))
    path.write_bytes(whole[:-8])
    refused(path, r"\d+ bytes of \d+", lambda: KeptLabels(artifact.path))
    (artifact.folder / "DONE").unlink()
    refused(path, ".+", lambda: KeptLabels(artifact.path))
    path.write_bytes(whole)
    refused(path, "no 'tokens'", lambda: read_fact(artifact.path, "tokens"))


def test_a_head_that_is_gone_is_not_taken_for_a_form_that_needs_none(made: Make) -> None:
    artifact = made(write)
    assert has_head(artifact.path)
    (artifact.path / HEAD).unlink()
    refused(artifact.path / HEAD, "missing", lambda: has_head(artifact.path))


@pytest.mark.parametrize(
    "facts", ["{", "[]", '{"scale": 1.0}', '{"scale": "1", "softcap": null}', '{"scale": 1.0, "softcap": "no"}']
)
def test_a_damaged_head_is_said(made: Make, facts: str) -> None:
    folder = made(write, lambda folder: (folder / HEAD_FACTS).write_text(facts)).path
    refused(folder / HEAD_FACTS, ".+", lambda: read_kept_head(folder))


def test_a_head_of_other_tensors_is_said(made: Make) -> None:
    other = made(write, lambda folder: write_kept_head(folder, KeptHead({"other": WEIGHT}, 1.0, None))).path
    refused(other / HEAD, "no weights of a linear layer", lambda: read_kept_head(other))
    (other / HEAD).write_bytes(json.dumps({}).encode())
    refused(other / HEAD, "not what was sealed", lambda: read_kept_head(other))
