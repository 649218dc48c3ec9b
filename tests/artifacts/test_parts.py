"""Parts are whole or absent: names with their checksums, what another attempt left, and what is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdray.artifacts.parts import all_parts, carry_over, parts, write_part
from kdray.store import Store
from tests.artifacts.conftest import KEY, Make, refused


def test_a_part_is_named_by_its_content_and_a_failed_one_is_not_there(tmp_path: Path) -> None:
    write_part(tmp_path, 12, ".txt", lambda path: path.write_text("hello"))
    assert [path.name for path in all_parts(tmp_path)] == ["part-00012-2cf24dba5fb0a30e.txt"]

    def fail(path: Path) -> None:
        path.write_text("hal")
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - whatever it was
        write_part(tmp_path, 13, ".txt", fail)
    assert set(parts(tmp_path)) == {12}


def test_only_intact_parts_of_earlier_attempts_are_carried_over(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = store.begin(KEY, {})
    for index in range(3):
        write_part(first.path, index, ".txt", lambda path, index=index: path.write_text(str(index)))
    parts(first.path)[1].write_text("other")
    (first.path / "part-of-something.txt").write_text("no part")
    assert carry_over(store.begin(KEY, {})) == {0, 2}


def test_a_part_that_is_gone_or_has_another_name_is_said(made: Make) -> None:
    artifact = made(lambda folder: [write_part(folder, i, ".txt", lambda path: path.write_text("x")) for i in range(2)])
    path = all_parts(artifact.path)[1]
    other = path.rename(path.with_name("part-x.txt"))
    refused(path, "missing", lambda: all_parts(artifact.path))
    refused(other, "no part's name", lambda: parts(artifact.path))
    other.rename(path).write_text("longer")
    refused(path, "6 bytes of 1", lambda: all_parts(artifact.path))
