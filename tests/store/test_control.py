"""What is asked of runs through files in the store."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kdray.store import Control, Locks, Store
from kdray.store.control import CONTROL
from tests.conftest import tree_of

ID = "0123456789ab"


@pytest.fixture
def control(tmp_path: Path) -> Control:
    return Control(tmp_path / "store")


def test_a_run_is_there_as_long_as_it_counts(control: Control) -> None:
    root = control.folder.parent
    assert control.runs("tiny") == []
    with Locks() as locks, control.announced("tiny", locks):
        [run] = control.runs("tiny")
        assert (run.owner, run.grid, run.pid) == (locks.owner, "tiny", os.getpid())
        assert control.runs("other") == []
        for long in (
            0,
            time.time() + 3600,
        ):  # killed, or far behind; or the clock was set back
            os.utime(root / "drivers" / locks.owner, (long, long))
            assert control.runs("tiny") == []
    assert list((root / CONTROL).iterdir()) == []


def test_a_hold_is_of_the_run_that_counts_on_and_ends_with_it(control: Control) -> None:
    with Locks(beat=0.02) as locks, control.announced("tiny", locks):
        assert control.hold("other", patience=5) == []
        assert not control.is_held(locks.owner)
        [run] = control.hold("tiny", patience=5)
        assert run.owner == locks.owner
        assert control.is_held(locks.owner)
        assert control.unhold("tiny")
        assert not control.is_held(locks.owner)
        assert not control.unhold("tiny")
        control.hold("tiny", patience=5)
    assert not control.is_held(locks.owner), "another run would find itself held"


def test_a_run_that_no_longer_counts_is_not_held(control: Control) -> None:
    with Locks(beat=60) as locks, control.announced("tiny", locks):
        assert control.hold("tiny", patience=0.2) == []
        assert not control.is_held(locks.owner)


def test_a_half_written_file_is_no_run(control: Control) -> None:
    control.folder.mkdir(parents=True)
    for content in ("", "[1]", '{"grid": "tiny"}'):
        (control.folder / "run-0").write_text(content)
        assert control.hold("tiny", patience=0.2) == []


def test_a_stop_lasts_until_it_is_taken_back(control: Control) -> None:
    before = tree_of(control.folder.parent)
    assert not control.is_stopped(ID)
    assert tree_of(control.folder.parent) == before
    control.stop(ID)
    control.stop(ID)
    assert control.is_stopped(ID)
    assert not control.is_stopped(ID[:-1])
    store = Store(control.folder.parent)
    assert store.find(ID) is None, "the file ends as a folder of that id would"
    with pytest.raises(KeyError):
        store.record(ID)
    control.unstop([ID])
    control.unstop([ID])
    assert not control.is_stopped(ID)


def test_a_stop_of_a_searchs_says_why_until_a_person_asks_for_it_too(control: Control) -> None:
    assert control.early(ID) == ""
    control.stop(ID, early="held-out loss 3.2")
    assert control.is_stopped(ID)
    assert control.early(ID) == "held-out loss 3.2"
    control.stop(ID)
    assert control.is_stopped(ID)
    assert control.early(ID) == ""
