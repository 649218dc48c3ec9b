"""Having people rate answers, and reading what they say."""

from __future__ import annotations

import os
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from kdray.cli.shared import GridFile, plan_of, say
from kdray.spec import InputError


def rate(
    grid: GridFile,
    n: Annotated[int, typer.Option("--n", min=1, help="how many articles, each with two answers")] = 50,
    arm: Annotated[
        str | None, typer.Option(metavar="ROW", help="the row of the table beside SFT; by default the best: 'KD 1'")
    ] = None,
    read: Annotated[list[Path] | None, typer.Option(metavar="CSV", help="what a rater saved; once a rater")] = None,
    open_page: Annotated[bool, typer.Option("--open", help="then open the page in a browser")] = False,
) -> None:
    """Make a page on which people rate answers of two rows blindly, or read what they saved (--read)."""
    from kdray.report.page.evidence import Evidence
    from kdray.report.rating.page import write_rating_page
    from kdray.report.rating.ratings import outcome_of, read_ratings, told
    from kdray.report.rating.sheet import make_sheet, read_key, write_key
    from kdray.report.results import collect

    made, store = plan_of(grid)
    folder = store.root / "report" / made.grid.name
    if read:
        if missing := next((path for path in read if not path.is_file()), None):
            raise InputError("--read", f"no file {missing}", "give the csv that a rater saved")
        key = read_key(folder)
        for line in told(outcome_of(key, [read_ratings(path, key) for path in read])):
            say(line)
        return
    key, questions = make_sheet(Evidence(collect(made, store)), store, n, arm)
    write_key(key, folder)
    page = write_rating_page(key, questions, folder)
    say(f"rate    {os.path.relpath(page)} ({len(questions)} articles)")
    say("        whose answers they are is in rating-key.json beside it: do not give that to who rates")
    say(f"then    kdray rate {os.path.relpath(grid)} --read RATINGS.csv")
    if open_page:
        webbrowser.open(page.as_uri())
