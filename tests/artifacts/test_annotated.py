"""Annotated answers: parts become one file, in which no failed answer stands; a damaged one is said."""

from __future__ import annotations

import functools
from pathlib import Path

from kdray.artifacts.annotated import (
    ANNOTATED,
    read_annotated,
    read_annotated_parts,
    write_annotated,
    write_annotated_part,
)
from kdray.artifacts.parts import parts
from kdray.lens.annotations import Annotated
from kdray.lens.sources.jsonl import jsonl, write_jsonl
from tests.artifacts.conftest import Make, refused

ROWS = [
    Annotated(str(i), "Ada is in Rome .", f"Ada lives in Oslo {i}", ((13, 17),), input_ids=(1,), output_ids=(2, 3))
    for i in range(3)
]


def write(folder: Path) -> None:
    write_annotated_part(folder, 1, functools.partial(write_jsonl, ROWS[2:]), [])
    write_annotated_part(folder, 0, functools.partial(write_jsonl, ROWS[:2]), ["OSError: lost"])
    lines, failed = read_annotated_parts(folder)
    assert ([line["id"] for line in lines], failed) == (["0", "1", "2"], ["OSError: lost"])
    write_annotated(folder, lines)
    assert parts(folder) == {}


def test_what_is_annotated_comes_back_in_the_one_format(made: Make, tmp_path: Path) -> None:
    artifact = made(write)
    assert read_annotated(artifact.path, jsonl) == ROWS
    write_jsonl(ROWS, tmp_path / "own.jsonl")
    assert (artifact.path / ANNOTATED).read_bytes() == (tmp_path / "own.jsonl").read_bytes()


def test_a_damaged_file_is_said(made: Make) -> None:
    artifact = made(write)
    path = artifact.path / ANNOTATED
    first, _, _ = path.read_bytes().partition(b"\n")
    path.write_bytes(first + b"\n")  # whole lines, and too few of them
    refused(path, "not what was sealed", lambda: read_annotated(artifact.path, jsonl))
    (artifact.folder / "DONE").unlink()
    path.write_bytes(first[:-1])
    refused(path, rf"line 1 of {ANNOTATED} is no JSON .*", lambda: read_annotated(artifact.path, jsonl))
    path.unlink()
    refused(path, "no file .*", lambda: read_annotated(artifact.path, jsonl))


def test_a_damaged_part_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "annotate" / "attempt-001"
    folder.mkdir(parents=True)
    write_annotated_part(folder, 0, lambda path: path.write_text("[1]\n"), [])
    refused(parts(folder)[0], ".+", lambda: read_annotated_parts(folder))
