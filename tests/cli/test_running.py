"""What `kdray run` does once its work is over."""

from __future__ import annotations

import pytest
import typer

from kdray.cli.running import do
from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.store import Outer, Store
from tests.conftest import TinyGrid


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
