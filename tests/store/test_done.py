"""What is read of a finished artifact is what was sealed, or one line says which file is not and what to do."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path

import pytest

from kdray.spec import InputError
from kdray.store import Artifact, Attempt, Key, Store
from kdray.store.done import SUM, require_intact, require_unchanged, sealed_files
from kdray.store.locks import DONE

KEY = Key("train", "lr1", "0123456789ab")


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    attempt = Store(tmp_path / "store").begin(KEY, {"step": "train", "params": {}, "inputs": {}})
    (attempt.path / "sub").mkdir()
    (attempt.path / "sub" / "a.txt").write_text("hello")
    (attempt.path / "b.txt").write_text("b")
    return attempt


def later(path: Path, content: bytes) -> None:
    """Write a file anew, as some time after it was written before: clocks of file systems have ticks."""
    written = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(written, written + 1))


def changed(path: Path, place: int = 0) -> None:
    """One bit of a file is another."""
    content = path.read_bytes()
    later(path, content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


def damage(path: Path, folder: Path, reason: str) -> str:
    return f"^{re.escape(str(path))}: damaged \\({reason}\\); remove the folder {re.escape(str(folder))} and run again$"


def test_a_changed_file_is_named_whenever_it_is_changed(attempt: Attempt) -> None:
    made = attempt.seal()
    path = made.path / "sub" / "a.txt"
    for _ in range(2):  # once it has been read, too
        require_unchanged(path)
        require_intact(made.path)
    changed(path)
    for look in (lambda: require_unchanged(path), lambda: require_intact(made.path)):
        with pytest.raises(InputError, match=damage(path, made.folder, "not what was sealed")):
            look()
    require_intact(made.path, {"b.txt"}.__contains__)  # of others nothing is read
    changed(path)  # back
    require_intact(made.path)


def test_a_missing_file_is_named_unless_it_was_removed_on_purpose(attempt: Attempt) -> None:
    made = attempt.seal()
    made.drop(["b.txt"], "scored")
    require_intact(made.path)
    path = made.path / "sub" / "a.txt"
    path.unlink()
    with pytest.raises(InputError, match=damage(path, made.folder, "missing")):
        require_intact(made.path)


def test_what_was_not_sealed_is_not_looked_at(attempt: Attempt, tmp_path: Path) -> None:
    path = attempt.path / "b.txt"
    changed(path)
    require_unchanged(path)
    require_intact(attempt.path)
    made = attempt.seal()
    (made.path / "more.txt").write_text("noted later")
    require_unchanged(made.path / "more.txt")
    other = made.folder / "attempt-002"
    other.mkdir()
    assert not sealed_files(other)
    assert not sealed_files(tmp_path)


def test_a_bit_of_done_that_is_another_is_damage_or_changes_nothing(attempt: Attempt) -> None:
    made = attempt.seal(loss=0.25, n=3)
    whole, said = (made.folder / DONE).read_bytes(), {name: made.done[name] for name in ("attempt", "files", "facts")}
    for place in range(len(whole)):
        changed(made.folder / DONE, place)
        read = {}
        with contextlib.suppress(InputError):
            read = Artifact(KEY, made.folder).done
        assert not read or {name: read[name] for name in said} == said, place
        later(made.folder / DONE, whole)
    later(made.folder / DONE, whole.replace(b"0.25", b"0.75"))
    with pytest.raises(InputError, match=f"^{made.folder / DONE}: damaged; remove the folder {made.folder} and run"):
        _ = Artifact(KEY, made.folder).done
    with pytest.raises(InputError, match=f"^{made.folder / DONE}: damaged; "):  # so that its files are not believed
        require_intact(made.path)


def test_facts_that_json_writes_in_its_own_way_are_whole_when_they_are_read(attempt: Attempt) -> None:
    made = attempt.seal(pair=(1, 2), by_number={10: "b", 2: "a"})
    assert made.facts["pair"] == [1, 2]


def test_one_of_an_earlier_version_has_no_sum(attempt: Attempt) -> None:
    made = attempt.seal()
    done = json.loads((made.folder / DONE).read_text())
    del done[SUM]
    (made.folder / DONE).write_text(json.dumps(done))
    require_intact(made.path)
    assert Artifact(KEY, made.folder).done["files"] == done["files"]
