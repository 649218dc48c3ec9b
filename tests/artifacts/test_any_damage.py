"""Artifacts' files with damage of any kind are read, or one line says which is damaged."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdray.artifacts.aligned import Aligned, write_aligned
from kdray.artifacts.annotated import read_annotated
from kdray.artifacts.answers import read_answers, write_answers
from kdray.artifacts.curve import read_growing_curve, write_curve
from kdray.artifacts.requests import read_requests, write_requests
from kdray.artifacts.rows import Rows
from kdray.artifacts.scores import (
    read_details,
    read_factual,
    read_rows,
    read_scores,
    write_details,
    write_factual,
    write_scores,
)
from kdray.artifacts.soft_labels import KeptLabels, read_kept_head
from kdray.artifacts.tables import read_table
from kdray.lens.annotations import Documents
from kdray.lens.classifier import Lens
from kdray.lens.sources.jsonl import jsonl
from kdray.models.load import load_folder
from kdray.spec.errors import InputError
from kdray.store import Artifact
from tests.artifacts import test_annotated, test_rows, test_soft_labels
from tests.artifacts.conftest import Make, refused
from tests.artifacts.test_intermediate import ANSWERED
from tests.mutations import DAMAGED, damaged, loads_or_says_so
from tests.tiny import write_model
from tests.track.bench import ANSWER

Read = Callable[[Path], Any]


def answers(folder: Path) -> Read:
    write_answers(folder, 0, [ANSWER | {"example": i} for i in range(3)], 1.0)
    return read_answers


def scores(folder: Path) -> Read:
    write_scores(folder, {"ce": {"value": 1.0, "stderr": 0.1, "n": 8}}, [{"example": i, "ce": 1.0} for i in range(8)])
    return lambda folder: (read_scores(folder), read_rows(folder, ["example"], ["ce"]).to_pylist())


def curve(folder: Path) -> Read:
    step = {"examples": 2, "tokens": 3, "loss": 1.0, "ce": 1.0}
    write_curve(folder, [step | {"step": i} for i in range(1, 5)])
    return read_growing_curve


def aligned(folder: Path) -> Read:
    write_aligned(folder, [([0, 2], [1, 3]), ([5], [4])], [0, -1, 7])
    return lambda folder: Aligned(folder).pairs(1)


@pytest.mark.parametrize("write", [answers, scores, curve, aligned])
@DAMAGED
@given(data=st.data())
def test_a_damaged_file_is_read_or_named(tmp_path: Path, write: Callable[[Path], Read], data: st.DataObject) -> None:
    read = write(tmp_path)
    path = data.draw(st.sampled_from(sorted(tmp_path.iterdir())))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    loads_or_says_so(lambda: read(tmp_path))


def test_a_text_that_is_no_utf8_is_damage(tmp_path: Path) -> None:
    """A flipped bit in an answer, which Parquet has no checksum for."""
    texts = pa.StringArray.from_buffers(1, pa.py_buffer(b"\x00\x00\x00\x00\x02\x00\x00\x00"), pa.py_buffer(b"a\xff"))
    pq.write_table(pa.table({"answer": texts}), tmp_path / "part.parquet")
    with pytest.raises(InputError, match=r"part.parquet: damaged"):
        read_table(tmp_path / "part.parquet")


def rated(folder: Path) -> None:
    scores(folder)
    write_factual(folder, {"drifted": True})
    write_details(folder, {"failed": 1})


def lens(folder: Path) -> None:
    Lens(torch.ones(2, 3), 0.3, 8, record={"a": 1}, documents=Documents([])).save(folder)


def read_kept(folder: Path) -> None:
    read_kept_head(folder)
    KeptLabels(folder).read([0, 1])  # a row of each part


SEALED: dict[str, tuple[Callable[[Path], Any], Read]] = {
    "aligned": (aligned, Aligned),
    "annotated": (test_annotated.write, lambda folder: read_annotated(folder, jsonl)),
    "answers": (answers, read_answers),
    "lens": (lens, Lens.load),
    "requests": (lambda folder: write_requests(folder, 0, ANSWERED), read_requests),
    "rows": (test_rows.write, Rows),
    "scores": (
        rated,
        lambda folder: (
            read_scores(folder),
            read_factual(folder),
            read_details(folder),
            read_rows(folder, ["example"]),
        ),
    ),
    "soft labels": (test_soft_labels.write, read_kept),
    "model": (lambda folder: write_model(folder), load_folder),
}


@pytest.mark.parametrize("kind", SEALED)
def test_of_a_finished_artifact_no_file_with_a_changed_bit_is_read(kind: str, made: Make, tmp_path: Path) -> None:
    """Whatever the bit makes of it: other weights, another score, or a file that nobody can read."""
    write, read = SEALED[kind]
    artifact: Artifact = made(write)
    read(artifact.path)
    for name in artifact.done["files"]:
        path = artifact.path / name
        whole, written = path.read_bytes(), path.stat()
        for place in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns + 1 + place))  # as of later
            refused(path, ".+", lambda: read(artifact.path))
        path.unlink()
        refused(path, "missing", lambda: read(artifact.path))
        path.write_bytes(whole)
        os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    read(artifact.path)
