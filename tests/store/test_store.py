"""The store: an artifact is there when DONE is, whatever happened before."""

from __future__ import annotations

import json
import multiprocessing.pool
import os
import shutil
from pathlib import Path

import pytest

from kdray.spec import InputError
from kdray.store import Artifact, Attempt, Key, Locks, Store, fingerprint, io
from kdray.store import store as module
from kdray.store.artifact import leftovers
from tests.conftest import tree_of
from tests.store.processes import in_processes

PAYLOAD = {"step": "train", "version": 1, "params": {"lr": 1e-5}, "inputs": {}}
ID, OTHER = fingerprint(PAYLOAD), "ba9876543210"
KEY = Key("train", "lr1e-05-b2-a0-s0", ID)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def written(store: Store, key: Key = KEY, text: str = "hello") -> Attempt:
    attempt = store.begin(key, PAYLOAD)
    (attempt.path / "sub").mkdir()
    (attempt.path / "sub" / "a.txt").write_text(text)
    return attempt


def test_reading_an_absent_store_creates_nothing(store: Store, tmp_path: Path) -> None:
    assert store.get(KEY) is None
    assert store.find(ID) is None
    assert list(store.folders()) == []
    assert store.state(KEY) == "missing"
    for read in (store.record, store.verify):
        with pytest.raises(KeyError):
            read(ID)
    assert tree_of(tmp_path) == {}


def test_an_artifact_is_found_once_it_is_sealed_and_not_before(store: Store) -> None:
    attempt = written(store)
    assert store.get(KEY) is None
    assert store.find(ID) is None
    sealed = attempt.seal(rows=3)
    found = store.get(KEY)
    assert found == store.find(ID) == sealed
    assert (found.path / "sub" / "a.txt").read_text() == "hello"
    assert found.facts["rows"] == 3
    assert set(found.done["files"]) == {"sub/a.txt"}


def test_the_record_is_there_before_the_work_begins(store: Store) -> None:
    store.begin(KEY, PAYLOAD)
    assert store.record(ID) == PAYLOAD
    assert [key for key, _ in store.folders()] == [KEY]


def test_done_is_written_last(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = written(store)
    synced: list[Path] = []
    monkeypatch.setattr(io, "sync", synced.append)
    monkeypatch.setattr(io, "put_json_if_absent", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        attempt.seal()
    assert {attempt.path / "sub" / "a.txt", attempt.path / "sub", attempt.path} <= set(
        synced
    )  # on the disk before DONE is
    assert store.get(KEY) is None


def test_a_half_written_artifact_does_not_block_a_new_attempt(store: Store) -> None:
    (store.folder(KEY) / "attempt-001").mkdir(parents=True)
    (store.folder(KEY) / f"{io.TEMPORARY}done").write_text("{")
    assert store.get(KEY) is None
    attempt = written(store)
    assert attempt.name == "attempt-002"
    attempt.seal()
    assert store.get(KEY).path.name == "attempt-002"


def test_sealing_removes_all_that_is_not_sealed(store: Store) -> None:
    old = written(store)
    attempt = written(store, text="new")
    for name in ("checkpoint_1/state.pt", "sub/b.txt", f"{io.TEMPORARY}x", "sub/deep/er.txt"):
        (attempt.path / name).parent.mkdir(exist_ok=True)
        (attempt.path / name).write_text("x")
    artifact = attempt.seal([attempt.path / "sub" / "a.txt"])
    assert sorted(tree_of(artifact.folder)) == [
        "DONE",
        "attempt-002",
        "attempt-002/sub",
        "attempt-002/sub/a.txt",
        "record.json",
    ]
    assert not old.path.exists()
    assert leftovers(artifact) == []


def test_earlier_attempts_come_newest_first_past_a_thousand(store: Store) -> None:
    for number in (1, 2, 999, 1000):
        (store.folder(KEY) / f"attempt-{number:03d}").mkdir(parents=True)
    attempt = store.begin(KEY, PAYLOAD)
    assert attempt.name == "attempt-1001"
    assert [path.name for path in attempt.earlier] == ["attempt-1000", "attempt-999", "attempt-002", "attempt-001"]


def test_the_number_of_an_attempt_is_never_given_twice(store: Store) -> None:
    for _ in range(3):
        last = written(store)
    last.seal()  # removes the first two: what still writes there must not meet a new attempt
    assert store.begin(KEY, PAYLOAD).name == "attempt-004"


def test_the_second_to_seal_gets_the_first_ones_artifact(store: Store) -> None:
    first, second = written(store, text="first"), written(store, text="second")
    won = first.seal()
    lost = second.seal([second.path / "sub" / "a.txt"])  # a file that the winner has removed
    assert lost.path == won.path == first.path
    assert (lost.path / "sub" / "a.txt").read_text() == "first"
    assert second.seal().path == first.path


def test_racing_to_seal_has_one_winner_whose_files_are_whole(store: Store) -> None:
    attempts = [written(store, text=f"{i}" * 2_000_000) for i in range(4)]
    paths = in_processes(4, lambda i: str(attempts[i].seal([attempts[i].path / "sub" / "a.txt"]).path))
    assert len(set(paths)) == 1
    assert store.verify(ID) == []
    assert len(io.list_folders(store.folder(KEY))) <= 4  # a loser's folder may remain: gc removes it


def test_an_attempt_whose_folder_is_gone_cannot_be_sealed_empty(store: Store) -> None:
    attempt = written(store)
    shutil.rmtree(attempt.path)
    with pytest.raises(FileNotFoundError):
        attempt.seal()
    assert store.get(KEY) is None


@pytest.mark.slow
def test_attempts_get_folders_of_their_own_from_threads_and_processes(store: Store) -> None:
    with multiprocessing.pool.ThreadPool(8) as pool:
        names = pool.map(lambda _: store.begin(KEY, PAYLOAD).name, range(16))
    names += in_processes(8, lambda i: store.begin(KEY, PAYLOAD).name)
    assert len(set(names)) == 24
    assert store.record(ID) == PAYLOAD


def test_an_artifact_is_found_under_another_slug(store: Store) -> None:
    alias = Key("train", "another-name", ID)
    assert store.folder(alias).name == f"another-name-{ID}"
    written(store)
    assert store.folder(alias) == store.folder(KEY)  # so that two drivers meet at one lock, whatever they call it
    sealed = written(store).seal()
    assert store.get(alias).folder == store.find(ID).folder == sealed.folder


def test_of_two_folders_of_one_id_the_finished_one_is_found(store: Store) -> None:
    for slug in ("a", "b", "c"):
        (store.root / "train" / f"{slug}-{ID}").mkdir(parents=True)
    (store.root / "train" / f"b-{ID}" / "DONE").write_text('{"attempt": "attempt-001", "files": {}, "facts": {}}')
    for slug in ("a", "b", "c", "d"):
        assert store.folder(Key("train", slug, ID)).name == f"b-{ID}"


def test_an_artifact_made_by_another_process_is_found_at_once(store: Store) -> None:
    other = Key("train", "other", OTHER)
    written(store).seal()
    assert store.get(KEY) is not None
    assert store.get(other) is None  # the listing is known now
    Store(store.root).begin(Key("train", "named-otherwise", OTHER), PAYLOAD).seal()
    assert store.get(other) is not None


def test_states_of_many_artifacts_need_few_listings(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written(store).seal()
    listings = []
    listdir = os.listdir
    monkeypatch.setattr(module.os, "listdir", lambda path: listings.append(path) or listdir(path))
    monkeypatch.setattr(module, "LISTED", 60)
    for i in range(1000):
        store.get(Key("train", "x", f"{i:012x}"))
    assert len(listings) == 1


@pytest.mark.slow
@pytest.mark.parametrize("id", ["*", "", "[0-9]*", "../../x", f"*{ID[1:]}", "**"])
def test_an_id_is_never_a_pattern(id: str, store: Store) -> None:
    written(store).seal()
    assert store.find(id) is None
    with pytest.raises(KeyError):
        store.record(id)


@pytest.mark.parametrize(
    "content",
    ["", "{", "{}", "[]", "null", '{"attempt": 1, "files": {}, "facts": {}}', '{"attempt": "a", "files": {}}'],
)
def test_a_damaged_done_is_named_wherever_it_is_met(content: str, store: Store) -> None:
    folder = written(store).seal().folder
    (folder / "DONE").write_text(content)
    for read in (
        store.get,
        lambda _: store.find(ID),
        lambda _: store.verify(ID),
        lambda _: leftovers(Artifact(KEY, folder)),
    ):
        with pytest.raises(InputError, match=rf"DONE: damaged; remove the folder {folder} and run again"):
            read(KEY)
    shutil.rmtree(folder)
    assert store.get(KEY) is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"step": 1, "params": {}, "inputs": {}}', "[" * 100_000, "9" * 5000]
)
def test_a_damaged_record_is_named(content: str, store: Store) -> None:
    folder = written(store).seal().folder
    (folder / "record.json").write_text(content)
    with pytest.raises(InputError, match=rf"record.json: damaged; remove the folder {folder} and run again"):
        store.record(ID)


def test_a_field_that_is_not_there_is_said_of_its_file(store: Store) -> None:
    artifact = written(store).seal(examples=8)
    assert (artifact.facts["examples"], artifact.facts.get("loss")) == (8, None)
    with pytest.raises(
        InputError, match=rf"DONE: damaged \(no 'loss'\); remove the folder {artifact.folder} and run again"
    ):
        artifact.facts["loss"]
    assert store.record(ID) == PAYLOAD
    with pytest.raises(InputError, match=r"record\.json: damaged \(no 'alpha'\); remove the folder"):
        store.record(ID)["params"]["alpha"]


def test_a_record_of_which_a_value_is_another_is_damaged(store: Store) -> None:
    """What was made from what is read from there, and what nothing needs is removed by it."""
    path = written(store).seal().folder / "record.json"
    for changed in (b"2e-05", b"NaN", b'"1e-05"'):
        path.write_bytes(json.dumps(PAYLOAD).encode().replace(b"1e-05", changed))
        with pytest.raises(InputError, match=rf"^{path}: damaged; remove the folder {path.parent} and run again$"):
            store.record(ID)


def test_verify_finds_what_has_changed_and_what_is_missing(store: Store) -> None:
    attempt = written(store)
    (attempt.path / "b.txt").write_text("b")
    artifact = attempt.seal()
    assert store.verify(ID) == []
    (artifact.path / "b.txt").write_text("c")
    (artifact.path / "sub" / "a.txt").unlink()
    assert store.verify(ID) == ["b.txt has changed since it was sealed", "sub/a.txt is missing"]


def test_folders_that_are_no_artifacts_are_not_listed(store: Store) -> None:
    written(store)
    for name in ("cache/wheels", f"report/tiny-{ID}", "train/lr1", "drivers"):
        (store.root / name).mkdir(parents=True)
    (store.root / "train" / "lr1" / "record.json").write_text("{}")
    assert [key for key, _ in store.folders()] == [KEY]


def test_it_is_running_while_somebody_counts_its_lock_up(store: Store) -> None:
    attempt = written(store)
    with Locks(beat=0.05) as locks:
        assert store.state(KEY) == "missing"
        assert locks.try_acquire(attempt.folder)
        assert store.state(KEY) == "running"
        attempt.seal()
        locks.release(attempt.folder)
        assert store.state(KEY) == "done"
        assert not list(attempt.folder.glob("lock-*"))


def test_a_home_folder_is_not_taken_by_its_name() -> None:
    assert Store("~/x").root == Path("~/x").expanduser().resolve()
