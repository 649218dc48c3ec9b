"""A run begins by saying that some of its workers will only wait."""

from __future__ import annotations

from typing import Any

import pytest

from kdray.cli import running
from tests.conftest import Run, TinyGrid


@pytest.mark.parametrize(("workers", "said"), [(4, 1), (2, 0), ("auto", 0)])
def test_workers_without_work_are_told_when_a_run_begins(
    workers: Any, said: int, run: Run, tiny_grid: TinyGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    monkeypatch.setattr("kdray.check.checks.check_grid", lambda *_, **__: [])
    monkeypatch.setattr("kdray.run.resolve", lambda *_: None)
    monkeypatch.setattr(running, "do", lambda *_: begun.append(1))
    path = tiny_grid({"axes.batch": [2, 8], "runtime.workers": workers})
    code, stdout, stderr = run("run", str(path))
    assert (code, begun) == (0, [1]), stderr
    note = "note runtime.workers: 4 share batches of 2: 2 of them do nothing there but wait"
    assert stdout.splitlines().count(note) == said
