"""Lenses, annotations and pickles with damage of any kind are read, or refused in one line."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdray.lens.annotations import Documents
from kdray.lens.classifier import Lens
from kdray.lens.pickles import import_pickle
from tests.mutations import DAMAGED, damaged, loads_or_says_so

OURS = {"id": "a", "document": "It rained. So.", "response": "It did.", "spans": [[0, 2]], "input_ids": [1, 2]}


@DAMAGED
@given(data=st.data())
def test_a_lens_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    Lens(torch.ones(2, 3), 0.3, 8, record={"a": 1}, documents=Documents([])).save(tmp_path)
    path = data.draw(st.sampled_from(sorted(tmp_path.iterdir())))
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    loads_or_says_so(lambda: Lens.load(tmp_path))


@DAMAGED
@given(data=st.data())
def test_annotations_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path, whole = tmp_path / "rows.jsonl", (json.dumps(OURS) + "\n").encode() * 2
    path.write_bytes(data.draw(damaged(whole)))
    loads_or_says_so(lambda: list(importlib.import_module("kdray.lens.sources.jsonl").jsonl(path)))


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["faithbench", "qags"])
@DAMAGED
@given(data=st.data())
def test_published_annotations_are_read_or_refused(
    tmp_path: Path, data_dir: Path, name: str, data: st.DataObject
) -> None:
    path = tmp_path / "rows.jsonl"
    with (data_dir / f"{name}.jsonl").open("rb") as file:
        path.write_bytes(data.draw(damaged(file.readline() + file.readline())))
    loads_or_says_so(lambda: list(getattr(importlib.import_module(f"kdray.lens.sources.{name}"), name)(path)))


@pytest.mark.realdata
@DAMAGED
@given(data=st.data())
def test_a_published_classifier_is_read_or_refused(tmp_path: Path, data_dir: Path, data: st.DataObject) -> None:
    name = "classifier_anno-nq-7b_sliding_window_8.pkl"
    (tmp_path / name).write_bytes(data.draw(damaged((data_dir / "lookback_lens" / name).read_bytes())))
    loads_or_says_so(lambda: import_pickle(tmp_path / name))
