"""How a run is seen: bars on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kdray.cli import progress as module
from kdray.cli.progress import Terminal


def file() -> tuple[Terminal, io.StringIO]:
    said = io.StringIO()
    return Terminal(Console(file=said, width=100)), said


def test_where_there_is_no_terminal_a_stage_says_where_it_is_and_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 100, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    progress, said = file()
    with progress, progress.bar("train", 8, "steps") as bar:  # begins at 0 s
        bar.set(1)  # 10 s: too early for a line
        bar.advance(2)  # 20 s
    assert said.getvalue() == "train: 3/8 steps\ntrain: done in 40 s\n"


def test_a_stage_that_fails_is_not_said_to_be_done() -> None:
    progress, said = file()
    with progress, pytest.raises(RuntimeError), progress.bar("train", 8):
        raise RuntimeError
    assert said.getvalue() == ""


def test_nothing_to_do_is_nothing_to_say() -> None:
    progress, said = file()
    with progress, progress.bar("train", 0, "steps"):
        pass
    assert said.getvalue() == ""


def test_a_line_may_be_marked_and_numbers_are_left_alone() -> None:
    progress, said = file()
    progress.say("[red]failed[/] train: 12 of 30")
    assert said.getvalue() == "failed train: 12 of 30\n"


def test_a_long_line_is_one_in_a_log() -> None:
    said = io.StringIO()
    Terminal(Console(file=said, width=20)).say(f"the traceback is in /{'x' * 40}/scoring.txt")
    assert said.getvalue() == f"the traceback is in /{'x' * 40}/scoring.txt\n"


def test_a_terminal_shows_a_bar() -> None:
    said = io.StringIO()
    progress = Terminal(Console(file=said, width=100, force_terminal=True, color_system=None))
    with progress, progress.bar("train", 8, "steps") as bar:
        bar.set(8)
    assert "8/8 steps" in said.getvalue()
    assert "done in" not in said.getvalue()
