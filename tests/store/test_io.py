"""The store's verbs: whole files or none, and one winner."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from kdray.store import io
from tests.conftest import tree_of
from tests.store.processes import in_processes


@pytest.mark.slow
def test_put_if_absent_has_one_winner_among_many_processes(tmp_path: Path) -> None:
    for round_ in range(5):
        target = tmp_path / f"{round_}.json"
        won = in_processes(8, lambda i, path: io.put_json_if_absent(path, {"winner": i}), target)
        assert won.count(True) == 1
        assert io.read_json(target) == {"winner": won.index(True)}
    assert sorted(tree_of(tmp_path)) == [f"{round_}.json" for round_ in range(5)]  # nobody left a temporary file


@pytest.mark.slow
def test_claiming_a_folder_has_one_winner_among_many_processes(tmp_path: Path) -> None:
    assert in_processes(8, lambda i, path: io.claim_folder(path), tmp_path / "folder").count(True) == 1


@pytest.mark.slow
def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    io.put_json(target, [0] * 20_000)

    def write_or_read(i: int) -> bool:
        if i < 2:
            for _ in range(20):
                io.put_json(target, [i] * 20_000, durable=False)
            return True
        return all(len(set(json.loads(target.read_bytes()))) == 1 for _ in range(50))

    assert in_processes(4, write_or_read) == [True] * 4


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    io.put_json(target, {"a": 1})
    for value in (float("nan"), {1, 2}):
        with pytest.raises((ValueError, TypeError)):
            io.put_json(target, value)
    assert tree_of(tmp_path) == {"a.json": b'{\n "a": 1\n}\n'}


def test_a_full_disk_is_not_filled_with_what_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        io.put_json(tmp_path / "a.json", {})
    assert not tree_of(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_what_is_no_json_reads_as_none(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    assert io.read_json(path) is None
    assert io.read_json(path / "below") is None


def test_a_file_that_is_replaced_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    io.put_json(tmp_path / "count", 7)
    read, failures = Path.read_bytes, [OSError(errno.ESTALE, "Stale file handle")]

    def stale_once(path: Path) -> bytes:
        if failures:
            raise failures.pop()
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", stale_once)
    assert io.read_json(tmp_path / "count") == 7


def test_what_is_moved_into_place_is_on_the_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(io, "sync", lambda path: synced.append(path.name) if not target.exists() else None)
    for target in (tmp_path / "file", tmp_path / "folder"):
        aside = tmp_path / "aside"
        if target.name == "folder":
            (aside / "inside").mkdir(parents=True)
            (aside / "inside" / "a.arrow").write_text("rows")
        else:
            aside.write_text("rows")
        io.move(aside, target)
        assert target.exists()
    assert synced == ["aside", "aside", "inside", "a.arrow"]


def test_unfinished_files_are_not_listed(tmp_path: Path) -> None:
    for name in ("b", "a/c", f"a/{io.TEMPORARY}x", f"{io.TEMPORARY}y"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("abc")
    assert io.list_files(tmp_path) == [tmp_path / "a/c", tmp_path / "b"]
    assert io.list_folders(tmp_path) == [tmp_path / "a"]
    assert io.list_folders(tmp_path / "nowhere") == io.list_files(tmp_path / "nowhere") == []


def test_size_counts_files_wherever_they_are(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"123")
    (tmp_path / "c").write_bytes(b"4567")
    assert (io.size(tmp_path), io.size(tmp_path / "c"), io.size(tmp_path / "nowhere")) == (7, 4, 0)


def test_delete_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("a")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("link", "nowhere"):
        io.delete(tmp_path / name)
    assert list(tree_of(tmp_path)) == ["kept", "kept/file"]
