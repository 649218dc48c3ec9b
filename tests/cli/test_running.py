"""What `kdray run` does once its work is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from kdray.cli.running import do
from kdray.orchestration.session import LOCAL, QUIET
from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.store import Control, Outer, Store
from kdray.track.mirror import Mirror
from tests.conftest import Run, TinyGrid
from tests.track.bench import Bench


def test_the_view_of_the_runs_is_finished_when_there_is_a_report_for_it(
    tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_grid()
    store = Store(load_grid(path).runtime.store)
    store.root.mkdir()
    page, seen = store.root / "report" / "tiny" / "report.html", []

    class View:
        def __init__(self, *_: object) -> None:
            assert not page.exists()

        def finish(self) -> None:
            seen.append(page.read_text())

    monkeypatch.setattr("kdray.track.follow.Follower", View)
    monkeypatch.setattr("kdray.run.run", lambda *_, **__: {})
    plan, outer = make_plan(load_grid(path), Outer(store.root)), Outer(store.root)
    with pytest.raises(typer.Exit):
        do(plan, store, outer, False, path)
    assert len(seen) == 1
    assert "kdray run " in seen[0]
    assert "grid.yaml</pre>" in seen[0]


@pytest.mark.slow
def test_a_view_that_was_cut_short_is_finished_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench, tries = Bench(tmp_path), []
    bench.finish()
    for step in bench.plan.steps():
        bench.seal(step)
    real = Mirror.finish

    def finish(mirror: Mirror) -> None:
        tries.append(mirror)
        if len(tries) == 1:
            raise KeyboardInterrupt
        real(mirror)

    monkeypatch.setattr(Mirror, "finish", finish)
    with pytest.raises(KeyboardInterrupt):
        do(bench.plan, bench.store, Outer(bench.store.root), False)
    for _ in range(2):
        do(bench.plan, bench.store, Outer(bench.store.root), False)
    assert len(tries) == 2, "what is finished is left alone"
    assert len(bench.runs()) == len(bench.plan.points) + len(bench.plan.models) + 1
    assert capsys.readouterr().out.count("steps are done") == 3


@pytest.mark.parametrize("by_hand", [False, True])
def test_points_that_a_search_has_stopped_are_no_work_that_is_left(
    by_hand: bool, tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny_grid()
    store = Store(load_grid(path).runtime.store)
    plan, outer = make_plan(load_grid(path), Outer(store.root)), Outer(store.root)
    early, other = (point.train for point in plan.points[:2])
    Control(store.root).stop(early.key.id, early="held-out loss 3.2")
    monkeypatch.setattr("kdray.run.run", lambda *_, **__: {})
    monkeypatch.setattr("kdray.track.follow.Follower.finish", lambda _: None)
    if by_hand:
        Control(store.root).stop(other.key.id)
        with pytest.raises(typer.Exit):
            do(plan, store, outer, False, path)
    else:
        do(plan, store, outer, False, path)
    told = "".join(capsys.readouterr())
    assert f"stopped early: {early.slug}; without `search` in {path} the same command trains them" in told
    assert (f"stopped: {other.slug};" in told) == by_hand
    assert "incomplete" not in told


@pytest.mark.parametrize(
    ("outcome", "state", "text"),
    [
        (lambda failing: failing("failed train x: loss nan"), "incomplete", "0 failed, 1 points stopped"),
        (KeyboardInterrupt(), "interrupted", "interrupted: the same command goes on"),
    ],
)
def test_the_webhook_is_told_how_a_run_ended(
    outcome: Any, state: str, text: str, tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_grid({"runtime.notify": "HOOK"})
    monkeypatch.setenv("HOOK", "https://host/secret")
    store = Store(load_grid(path).runtime.store)
    plan, outer = make_plan(load_grid(path), Outer(store.root)), Outer(store.root)
    Control(store.root).stop(plan.points[0].train.key.id)
    told = []

    def run(*_: object, failing: Any, **__: object) -> dict[str, str]:
        if isinstance(outcome, BaseException):
            raise outcome
        outcome(failing)
        return {}

    monkeypatch.setattr("kdray.run.run", run)
    monkeypatch.setattr("kdray.track.follow.Follower.finish", lambda _: None)
    monkeypatch.setattr("kdray.orchestration.notify.Notifier.tell", lambda _, *said: told.append(said))
    with pytest.raises((typer.Exit, KeyboardInterrupt)):
        do(plan, store, outer, False, path)
    assert told[-1][0] == state
    assert told[-1][1].endswith(text)
    assert [said for said, _ in told[:-1]] == (["failing"] if state == "incomplete" else [])


def test_a_ray_that_does_not_come_up_is_one_line_and_code_1(
    tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    def slow(**_: object) -> None:
        raise Exception("The current node timed out during startup. This could be.\nSee the log")

    for name, value in {**QUIET, **LOCAL}.items():
        monkeypatch.setenv(name, value)  # so that the test leaves none behind
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", slow)
    path = tiny_grid()
    store = Store(load_grid(path).runtime.store)
    outer = Outer(store.root)
    with pytest.raises(typer.Exit) as ended:
        do(make_plan(load_grid(path), outer), store, outer, False, path)
    assert ended.value.exit_code == 1
    said = (
        "error Ray has not started here (The current node timed out during startup. This could be.); if the machine is"
    )
    assert capsys.readouterr().err == f"{said} busy, try again later\n"


def test_a_webhook_that_nobody_has_named_ends_the_run_before_any_work(
    run: Run, tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_grid({"runtime.notify": "HOOK"})
    monkeypatch.delenv("HOOK", raising=False)
    said = "error runtime.notify: no variable HOOK in the environment; export it with the webhook's URL\n"
    assert run("run", path) == (2, "", said)
    assert run("check", "--offline", path) == (2, "", said)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://head:8265")  # it is to be submitted: the head has it
    assert run("check", "--offline", path)[0] == 0
