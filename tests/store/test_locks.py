"""Locks: one holder among many, never robbed while it counts, succeeded by exactly one when it is dead."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdray.store import Locks, io
from kdray.store import locks as module
from kdray.store.locks import held, working
from tests.store.processes import CONTEXT, in_processes

BEAT, STALE = 0.02, 0.8  # seconds; on a busy machine a process may have to wait for a core that long


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "store" / "train" / "lr1-0123456789ab"
    path.mkdir(parents=True)
    return path


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


class Clock:
    """A monotonic clock that stands still unless told."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module.time, "monotonic", found.monotonic)
    return found


def silent() -> Locks:
    """A driver that takes locks and never counts: as a killed one looks from outside."""
    return Locks(beat=1e9, stale_after=10)


@pytest.mark.slow
def test_one_of_eight_processes_gets_a_lock(folder: Path) -> None:
    assert in_processes(8, lambda i: Locks().try_acquire(folder)).count(True) == 1


@pytest.mark.slow
def test_work_under_the_lock_is_done_by_one_at_a_time(folder: Path) -> None:
    inside, log = folder.parent / "inside", folder.parent / "log"

    def work(i: int) -> bool:
        with Locks(beat=BEAT, stale_after=30) as locks:
            until(lambda: locks.try_acquire(folder), 50)
            alone = io.claim_folder(inside)
            with log.open("a") as file:
                file.write(f"{i}\n")
            time.sleep(0.005)
            inside.rmdir()
            locks.release(folder)
            return alone

    assert in_processes(8, work) == [True] * 8
    assert sorted(log.read_text().split()) == [str(i) for i in range(8)]
    assert len(list(folder.glob("lock-*"))) == 1  # nothing piles up


@pytest.mark.slow
def test_a_holder_that_counts_is_never_robbed_however_long_it_works(folder: Path) -> None:
    with Locks(beat=BEAT) as holder:
        assert holder.try_acquire(folder)
        waiter = Locks(stale_after=STALE)
        end = time.monotonic() + 1.5 * STALE
        while time.monotonic() < end:
            assert not waiter.try_acquire(folder)
            time.sleep(BEAT)
        assert holder.try_acquire(folder)


def test_a_waiter_that_looks_rarely_sees_that_the_count_has_moved(folder: Path, clock: Clock) -> None:
    holder, waiter = silent(), silent()
    assert holder.try_acquire(folder)
    for count in range(1, 5):
        assert not waiter.try_acquire(folder)
        io.put_json(folder.parents[1] / "drivers" / holder.owner, count)
        clock.now += 1000


def test_a_lock_is_stale_after_the_waiters_own_seconds_without_a_count(folder: Path, clock: Clock) -> None:
    assert silent().try_acquire(folder)
    clock.now = 1e6  # how long the lock has been there does not matter, only how long we have looked
    waiter = silent()
    assert not waiter.try_acquire(folder)
    clock.now += 9.9
    assert not waiter.try_acquire(folder)
    clock.now += 0.2
    assert waiter.try_acquire(folder)


@pytest.mark.parametrize("age", [-1e9, 1e9])
def test_the_wall_clock_decides_nothing(age: float, folder: Path, clock: Clock) -> None:
    holder = silent()
    assert holder.try_acquire(folder)
    waiter = silent()
    for _ in range(3):
        for path in [*folder.glob("lock-*"), *folder.parents[1].glob("drivers/*")]:
            os.utime(path, (time.time() + age,) * 2)
        assert not waiter.try_acquire(folder)
        clock.now += 4
    assert waiter.try_acquire(folder)


def test_the_locks_of_one_dead_driver_are_free_after_one_wait(folder: Path, clock: Clock) -> None:
    folders = [folder.with_name(f"{i}-0123456789ab") for i in range(5)]
    dead, waiter = silent(), silent()
    assert all(dead.try_acquire(one) for one in folders)
    assert not waiter.try_acquire(folders[0])
    clock.now += 10
    assert all(waiter.try_acquire(one) for one in folders)


def test_counting_costs_one_write_however_many_locks_are_held(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locks = Locks()
    assert all(locks.try_acquire(folder.with_name(f"{i}-0123456789ab")) for i in range(50))
    writes: list[Path] = []
    monkeypatch.setattr(module.io, "put_json", lambda path, *_, **__: writes.append(path))
    monkeypatch.setattr(locks.stopped, "wait", lambda _: len(writes) > 0)
    locks.count_up()
    assert writes == [folder.parents[1] / "drivers" / locks.owner]


def test_a_count_that_cannot_be_written_does_not_end_the_counting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_json, failures = io.put_json, iter([OSError("disk full")] * 3)

    def full_at_first(*args: object, **options: object) -> None:
        for error in failures:
            raise error
        put_json(*args, **options)  # type: ignore[arg-type]

    with Locks(beat=BEAT) as locks:
        assert locks.try_acquire(folder)
        counter = folder.parents[1] / "drivers" / locks.owner
        monkeypatch.setattr(module.io, "put_json", full_at_first)
        until(lambda: io.read_json(counter) > 3)


def hold_and_say(folder: Path, said: object) -> None:
    with Locks(beat=BEAT) as locks:
        locks.try_acquire(folder)
        said.set()  # type: ignore[attr-defined]
        time.sleep(100)


@pytest.mark.slow
def test_a_killed_holder_is_succeeded_by_exactly_one_of_several_waiters(folder: Path) -> None:
    said = CONTEXT.Event()
    holder = CONTEXT.Process(target=hold_and_say, args=(folder, said), daemon=True)
    holder.start()
    assert said.wait(20)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()

    taken = CONTEXT.Event()

    def wait_for_it(i: int) -> bool:
        with Locks(beat=BEAT, stale_after=STALE) as locks:
            end = None
            while end is None or time.monotonic() < end:
                if locks.try_acquire(folder):
                    taken.set()
                    time.sleep(2 * STALE)  # longer than the others go on trying
                    return True
                end = end or (time.monotonic() + 1.25 * STALE if taken.is_set() else None)
                time.sleep(BEAT)
            return False

    assert in_processes(5, wait_for_it).count(True) == 1


def test_a_lock_given_back_is_free_at_once(folder: Path) -> None:
    first, second = silent(), silent()
    assert first.try_acquire(folder)
    assert not second.try_acquire(folder)
    first.release(folder)
    assert second.try_acquire(folder)
    assert not first.try_acquire(folder)


def test_a_lock_that_cannot_be_given_back_is_left_to_go_stale(
    folder: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("no space left")

    ours, other = silent(), silent()
    assert ours.try_acquire(folder)
    with monkeypatch.context() as patch:
        patch.setattr(io, "put_json", full)
        ours.release(folder)
    assert not other.try_acquire(folder)
    clock.now += 10
    assert other.try_acquire(folder)


def test_leaving_gives_everything_back(folder: Path) -> None:
    with Locks(beat=BEAT) as locks:
        assert locks.try_acquire(folder)
    assert silent().try_acquire(folder)
    assert not (folder.parents[1] / "drivers" / locks.owner).exists()


def test_of_a_finished_artifact_no_lock_remains(folder: Path) -> None:
    locks = silent()
    assert locks.try_acquire(folder)
    (folder / "DONE").write_text("{}")
    locks.release(folder)
    assert not list(folder.glob("lock-*"))


def test_a_robbed_driver_neither_believes_it_holds_the_lock_nor_gives_it_back(folder: Path, clock: Clock) -> None:
    sleeper, robber = silent(), silent()
    assert sleeper.try_acquire(folder)
    assert not robber.try_acquire(folder)
    clock.now += 11
    assert robber.try_acquire(folder)
    assert not sleeper.try_acquire(folder)
    sleeper.release(folder)
    assert not silent().try_acquire(folder)
    assert robber.try_acquire(folder)


def test_a_look_that_misses_the_current_lock_does_not_make_a_second_holder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = silent(), silent()
    assert first.try_acquire(folder)
    first.release(folder)
    assert first.try_acquire(folder)  # lock-000002, while lock-000001 is gone
    current, missed = module.current_lock, [None]
    monkeypatch.setattr(module, "current_lock", lambda path: missed.pop() if missed else current(path))
    assert not second.try_acquire(folder)
    assert [path.name for path in folder.glob("lock-*")] == ["lock-000002"]


def test_a_lock_file_that_was_cut_off_blocks_only_for_a_while(folder: Path, clock: Clock) -> None:
    (folder / "lock-000007").write_bytes(b"")
    waiter = silent()
    assert not waiter.try_acquire(folder)
    clock.now += 10
    assert waiter.try_acquire(folder)
    assert [path.name for path in folder.glob("lock-*")] == ["lock-000008"]


def test_the_holder_is_named(folder: Path) -> None:
    locks = silent()
    assert locks.holder(folder) == "process ? on ?"
    locks.try_acquire(folder)
    assert locks.holder(folder).startswith(f"process {os.getpid()} on ")


def test_held_is_shown_while_it_is_counted(folder: Path) -> None:
    assert not held(folder)
    locks = silent()
    locks.try_acquire(folder)
    assert held(folder)
    for long in (0, time.time() + 3600):  # ago, or an hour ahead of a clock that was set back
        os.utime(folder.parents[1] / "drivers" / locks.owner, (long, long))
        assert not held(folder)


@pytest.mark.slow
def test_working_tells_those_who_count_from_the_dead(folder: Path) -> None:
    dead, free, unlocked = (folder.with_name(f"{name}-0123456789ab") for name in ("dead", "free", "unlocked"))
    unlocked.mkdir()
    silent().try_acquire(dead)
    given_back = silent()
    given_back.try_acquire(free)
    given_back.release(free)
    with Locks(beat=BEAT) as locks:
        locks.try_acquire(folder)
        assert working([folder, dead, free, unlocked], patience=STALE) == {folder}
        began = time.monotonic()
        assert working([folder, free, unlocked], patience=60) == {folder}
        assert time.monotonic() - began < 30  # it looks no longer than it must
