"""What a run stands on is lost for as long as it says, and is there again."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.surroundings import DAY, Server, can_mount, full, read_only, shift_times, small_disk
from kdray.store import Artifact, Store
from kdray.store.artifact import Key
from kdray.track.connection import TrackingError
from kdray.track.mirror import Mirror
from tests.conftest import tree_of
from tests.track.bench import Bench
from tests.track.test_mirror import ALL_ROWS

Trouble = Callable[[Path], contextlib.AbstractContextManager[None]]
needs_root = pytest.mark.skipif(not can_mount(), reason="no right to mount")


@needs_root
def test_a_full_disk_takes_no_byte_until_it_is_over(tmp_path: Path) -> None:
    with small_disk(tmp_path):
        with full(tmp_path), pytest.raises(OSError, match="No space left") as caught:
            (tmp_path / "a").write_bytes(b"a" * 5000)
        assert caught.value.errno == errno.ENOSPC
        (tmp_path / "a").write_text("a")
    assert not list(tmp_path.iterdir())


@needs_root
def test_a_store_that_cannot_be_written_keeps_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with read_only(tmp_path):
        assert (tmp_path / "a").read_text() == "a"
        for change in (lambda: (tmp_path / "a").write_text("b"), lambda: (tmp_path / "a").rename(tmp_path / "b")):
            with pytest.raises(OSError, match="Read-only"):
                change()
    (tmp_path / "a").write_text("b")


@needs_root
@pytest.mark.parametrize("trouble", [full, read_only])
def test_a_store_on_such_a_disk_loses_nothing_and_goes_on(trouble: Trouble, tmp_path: Path) -> None:
    done, begun = (Key("measure", name, name * 12) for name in "ab")
    with small_disk(tmp_path):
        store = Store(tmp_path / "store")
        sealed(store, done)
        half = store.begin(begun, {"what": "half"})
        before = tree_of(store.root)
        with trouble(tmp_path):
            with pytest.raises(OSError, match=r"No space left|Read-only"):
                (half.path / "a").write_text("a" * 5000)
            with pytest.raises(OSError, match=r"No space left|Read-only"):
                half.seal()
            assert Store(store.root).get(done)
            assert not Store(store.root).get(begun)
        (half.path / "a").unlink(missing_ok=True)
        assert tree_of(store.root) == before
        assert sealed(Store(store.root), begun).path.name == "attempt-002"


def sealed(store: Store, key: Key) -> Artifact:
    attempt = store.begin(key, {"what": key.slug})
    (attempt.path / "a").write_text("a")
    return attempt.seal()


def test_times_are_shifted_but_those_of_one_name(tmp_path: Path) -> None:
    for name in ("a", "DONE"):
        (tmp_path / name).touch()
    before = {path.name: path.stat().st_mtime for path in tmp_path.iterdir()}
    shift_times(tmp_path, -DAY, but="DONE")
    assert (tmp_path / "a").stat().st_mtime == pytest.approx(before["a"] - DAY, abs=1)
    assert (tmp_path / "DONE").stat().st_mtime == before["DONE"]


@pytest.mark.slow
def test_a_view_is_whole_though_its_server_was_down_and_slow(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.store.root.mkdir()
    with contextlib.closing(Server(bench.database)) as server:
        bench.changes["runtime.mlflow"] = server.address
        bench.finish()
        for trouble in (server.down, server.slow):
            with trouble(), pytest.raises(TrackingError):
                Mirror(bench.plan, bench.store).update()
        Mirror(bench.plan, bench.store).finish()
        Mirror(bench.plan, bench.store).finish()
        assert len(bench.rows()) == ALL_ROWS
