"""Only what nobody needs and nobody works on is garbage."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kdray.plan import gc as module
from kdray.plan.gc import find_garbage
from kdray.spec import InputError
from kdray.store import Locks, Store, io
from kdray.store.store import RECORD
from tests.plan.conftest import MakePlan, seal

STALE = 0.3


def names(store: Store, *plans: object) -> list[str]:
    found = find_garbage(list(plans), store, patience=STALE)  # type: ignore[arg-type]
    return sorted(str(item.path.relative_to(store.root)) for item in found)


def test_what_the_grid_reaches_is_kept_and_all_else_is_found(plan: MakePlan, store: Store) -> None:
    old, new = plan({"axes.lr": [1e-3, 1e-4]}), plan({"axes.lr": [1e-4, 1e-5]})
    seal(store, *old.steps())
    kept = {step.id for step in new.steps()}
    gone = [step for step in old.steps() if step.id not in kept]
    assert names(store, new) == sorted(f"{step.kind}/{step.slug}-{step.id}" for step in gone)
    assert {step.kind for step in gone} == {"train", "student", "generate", "measure"}
    assert names(store, old) == []
    assert names(store) == sorted(f"{step.kind}/{step.slug}-{step.id}" for step in old.steps())


@pytest.mark.slow
def test_answers_are_kept_while_some_point_trains_on_them(plan: MakePlan, store: Store) -> None:
    every, fewer, none = (plan({"axes.labels": labels}) for labels in (["gold", "teacher", "both"], ["both"], ["gold"]))
    seal(store, *every.steps())
    assert names(store, every) == []
    kinds = [name.split("/")[0] for name in names(store, fewer)]
    assert (kinds.count("augment"), kinds.count("soften"), kinds.count("train")) == (0, 1, 8)
    kinds = [name.split("/")[0] for name in names(store, none)]
    assert (kinds.count("augment"), kinds.count("soften"), kinds.count("train")) == (2, 2, 8)


def test_what_any_of_the_grids_reaches_is_kept(plan: MakePlan, store: Store) -> None:
    one, other = plan({"axes.lr": [1e-3]}), plan({"axes.lr": [1e-4], "data.heldout": 3})
    seal(store, *one.steps())
    seal(store, *(step for step in other.steps() if store.get(step.key) is None))
    assert names(store, one, other) == []
    assert len(names(store, one)) + len(names(store, other)) > 0


def test_unfinished_work_of_the_grid_is_kept_to_be_resumed(plan: MakePlan, store: Store) -> None:
    made = plan()
    attempts = [store.begin(made.points[0].train.key, made.points[0].train.payload or {}) for _ in range(2)]
    (attempts[0].path / "checkpoint").write_text("x")
    assert names(store, made) == []


def test_what_early_ends_left_in_a_finished_artifact_is_found(plan: MakePlan, store: Store) -> None:
    made = plan()
    (artifact,) = seal(store, made.prepare)
    (artifact.path / "checkpoint").mkdir()  # its driver was killed right after DONE
    (artifact.path / "checkpoint" / "state").write_bytes(b"1234")
    late = store.begin(made.prepare.key, made.prepare.payload or {})
    (late.path / "rows").write_bytes(b"12")
    sealed = artifact.path.relative_to(store.root)
    assert names(store, made) == [f"{sealed}/checkpoint", f"{sealed.parent}/{late.name}"]
    assert {item.path.name: item.bytes for item in find_garbage([made], store)} == {"checkpoint": 4, late.name: 2}
    for item in find_garbage([made], store):
        io.delete(item.path)
    assert store.verify(made.prepare.key.id) == []


def test_a_second_folder_of_a_finished_artifact_is_found_and_the_finished_one_is_not_hurt(
    plan: MakePlan, store: Store
) -> None:
    made = plan()
    (artifact,) = seal(store, made.prepare)
    twin = artifact.folder.with_name(f"aaa-{made.prepare.id}")
    (twin / "attempt-001").mkdir(parents=True)
    io.put_json(twin / RECORD, made.prepare.payload)
    assert names(store, made) == [f"prepare/{twin.name}"]
    with Locks(beat=0.02) as locks:
        assert locks.try_acquire(twin)  # somebody has not seen yet that it is finished
        assert names(store, made) == []


def test_a_running_artifact_its_inputs_and_its_exports_are_kept_whoever_runs_it(plan: MakePlan, store: Store) -> None:
    theirs = plan({"axes.lr": [1e-3], "axes.alpha": [0.1], "data.heldout": 3})
    point, mine = theirs.points[0], plan({"axes.lr": [1e-4], "axes.alpha": [0]})
    soften = theirs.heldout_labels.soft_labels
    needed = [*theirs.models.values(), theirs.models["teacher"].inputs.student, theirs.prepare, soften]
    seal(store, *{step.key: step for step in needed}.values())
    attempt = store.begin(point.train.key, point.train.payload or {})
    seal(store, point.exports[2.0])
    (store.root / "scratch" / "tune").mkdir(parents=True)
    everything = sorted([f"{key.kind}/{path.name}" for key, path in store.folders()])
    shared = {
        f"model/student-{mine.models['student'].id}",
        f"model/teacher-{theirs.models['teacher'].inputs.student.id}",
    }
    with Locks(beat=0.02) as locks:
        assert locks.try_acquire(attempt.folder)
        assert names(store, mine) == []
    assert names(store, mine) == sorted([*(name for name in everything if name not in shared), "scratch/tune"])


@pytest.mark.slow
def test_a_dead_holder_keeps_nothing_and_a_slow_look_is_never_needed_without_locks(
    plan: MakePlan, store: Store
) -> None:
    made, mine = plan(), plan({"axes.lr": [1e-5]})
    (artifact,) = seal(store, made.prepare)
    Locks().try_acquire(artifact.folder)  # its driver was killed between DONE and giving the lock back
    began = time.monotonic()
    find_garbage([mine], store, patience=60)
    assert time.monotonic() - began < 30
    attempt = store.begin(made.points[0].train.key, made.points[0].train.payload or {})
    Locks().try_acquire(attempt.folder)  # and is killed
    assert f"train/{attempt.folder.name}" in names(store, mine)


def test_a_lock_is_not_judged_by_its_age(plan: MakePlan, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made, mine = plan(), plan({"axes.lr": [1e-5]})
    attempt = store.begin(made.points[0].train.key, made.points[0].train.payload or {})
    monkeypatch.setattr(module.Store, "state", lambda *_: pytest.fail("that is for display only"))
    with Locks(beat=0.02) as locks:
        assert locks.try_acquire(attempt.folder)
        assert names(store, mine) == []


def test_scratch_of_nobody_is_found(plan: MakePlan, store: Store) -> None:
    (store.root / "scratch" / "tune").mkdir(parents=True)
    io.put(store.root / "errors" / "scoring-1.txt", b"Traceback")
    assert names(store, plan()) == ["errors/scoring-1.txt", "scratch/tune"]


def test_scratch_of_a_run_between_two_steps_is_kept(plan: MakePlan, store: Store) -> None:
    (store.root / "scratch" / "prompts").mkdir(parents=True)
    with Locks(beat=0.02) as locks:
        locks.be_counted(store.root)
        assert names(store, plan()) == []
    Locks().be_counted(store.root)  # and is killed
    assert names(store, plan()) == ["scratch/prompts"]


def test_what_is_not_an_artifact_is_never_found(plan: MakePlan, store: Store) -> None:
    for name in ("cache/wheels/a.whl", "report/tiny/report.md", "mlflow.db", "drivers/x", "train/notes.txt"):
        path = store.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert names(store, plan()) == []


def test_an_unresolved_grid_is_refused_because_what_it_reaches_is_not_known(plan: MakePlan, store: Store) -> None:
    seal(store, plan().prepare)
    with pytest.raises(InputError, match=r"^tiny: model teacher is unresolved; run the grid once"):
        find_garbage([plan(), plan({"teacher.model": "hf:org/teacher"})], store)


def test_an_absent_store_has_no_garbage(plan: MakePlan, tmp_path: Path) -> None:
    assert find_garbage([plan()], Store(tmp_path / "nowhere")) == []
