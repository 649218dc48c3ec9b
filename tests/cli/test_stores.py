"""Commands about what is in a store."""

from __future__ import annotations

import pytest

from kdray.cli.shared import FAILED
from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.store import Outer, Store, io
from tests.conftest import Run, TinyGrid, tree_of
from tests.plan.conftest import seal


@pytest.mark.slow
def test_gc_says_what_it_would_remove_and_then_removes_it(run: Run, tiny_grid: TinyGrid) -> None:
    store = Store(tiny_grid.folder / "store")
    old = make_plan(load_grid(tiny_grid()), Outer(store.root))
    seal(store, *old.steps())
    path = tiny_grid({"axes.lr": [1e-3], "teacher.tune.lr": 5e-3})
    kept = {step.id for step in make_plan(load_grid(path), Outer(store.root)).steps()}
    gone = [store.folder(step.key) for step in old.steps() if step.id not in kept]
    before = tree_of(store.root)
    code, stdout, _ = run("gc", "--dry-run", path)
    assert code == 0
    assert stdout.count("would remove ") == len(gone) > 0
    assert all(f"would remove {folder} (0.0 MB)" in stdout for folder in gone)
    after = tree_of(store.root)
    assert {name: after[name] for name in before} == before
    code, stdout, _ = run("gc", path)
    assert (code, stdout.count("removed ")) == (0, len(gone))
    assert not any(folder.exists() for folder in gone)
    assert all(store.get(step.key) for step in old.steps() if step.id in kept)


def test_gc_removes_nothing_where_one_of_the_stores_cannot_be_looked_at(run: Run, tiny_grid: TinyGrid) -> None:
    store = Store(tiny_grid.folder / "store")
    old = make_plan(load_grid(tiny_grid({"axes.lr": [5e-3]})), Outer(store.root))
    seal(store, *old.steps())
    other = tiny_grid({"student.model": "hf:org/student", "runtime.store": "HERE/other"}, "other.yaml")
    code, stdout, _ = run("gc", tiny_grid(), other)
    assert (code, stdout) == (2, "")
    assert all(store.get(step.key) for step in old.steps())


def test_gc_says_what_it_could_not_remove_whatever_the_store_is_called(
    run: Run, tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {"runtime.store": "HERE/[v2]"}
    store = Store(tiny_grid.folder / "[v2]")
    old = make_plan(load_grid(tiny_grid(named | {"axes.lr": [5e-3]})), Outer(store.root))
    [sealed] = seal(store, old.prepare)
    path = tiny_grid(named | {"data.heldout": 3})
    with monkeypatch.context() as patch:
        patch.setattr(io.shutil, "rmtree", lambda *_, **__: None)  # as of another user's folder
        code, stdout, _ = run("gc", path)
    assert (code, stdout.splitlines()) == (
        FAILED,
        [f"could not remove {sealed.folder} (0.0 MB)", f"{store.root}: 0 folders, 0.0 MB"],
    )
    code, stdout, _ = run("gc", path)
    assert (code, stdout.splitlines()[0]) == (0, f"removed {sealed.folder} (0.0 MB)")


def test_a_view_that_cannot_be_written_fails_track(
    run: Run, tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdray.track.connection import TrackingError
    from kdray.track.mirror import Mirror

    def refuse(_: Mirror) -> None:
        raise TrackingError("no answer\nat all")

    monkeypatch.setattr(Mirror, "update", refuse)
    monkeypatch.setattr(Mirror, "finish", refuse)
    code, stdout, stderr = run("track", tiny_grid())
    assert (code, stdout) == (FAILED, "")
    assert stderr == "MLflow cannot be written (no answer); make it reachable, or correct runtime.mlflow\n"
