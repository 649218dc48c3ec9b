"""Where numbers are from, what they cost and what is missing, as another person needs it to make them again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kdray.artifacts.curve import write_curve
from kdray.plan import make_plan
from kdray.report.page.evidence import Evidence
from kdray.report.page.origin import origin_of, source_state, written
from kdray.report.page.states import bytes_of, duration, progress_of
from kdray.report.results import collect
from kdray.spec import load_grid
from kdray.spec.load import parse_grid
from kdray.store import Control, Outer, Store, io
from tests.conftest import ROOT, TinyGrid


@pytest.mark.slow
@pytest.mark.parametrize("name", ["quickstart", "llama2_7b", "controls_smollm2", "overconfidence"])
def test_the_grid_on_the_page_makes_the_same_steps(name: str, tmp_path: Path) -> None:
    grid = load_grid(ROOT / "grids" / f"{name}.yaml")
    plans = [make_plan(each, Outer(tmp_path / "store")) for each in (grid, parse_grid(written(grid)))]
    first, second = ([step.mark for step in plan.steps()] for plan in plans)
    assert first == second
    assert plans[0].grid.report == plans[1].grid.report


def test_what_is_not_pinned_is_told_with_what_it_was_resolved_to(tiny_grid, tmp_path: Path) -> None:
    grid = load_grid(tiny_grid({"student.model": "hf:org/model"}))
    store = Store(grid.runtime.store)
    io.put_json(Outer(store.root).lockfile, {"hf:org/model": "a" * 40})
    plan = make_plan(grid, Outer(store.root))
    inputs = dict(origin_of(Evidence(collect(plan, store)), store).inputs)
    assert f"hf:org/model@{'a' * 40}" in inputs.values()
    assert f"file:{tiny_grid.folder}/teacher" in inputs.values()


def test_what_steps_note_is_told_with_all_its_values_and_their_time_is_added_up(tiny_grid) -> None:
    grid = load_grid(tiny_grid())
    store = Store(grid.runtime.store)
    plan = make_plan(grid, Outer(store.root))
    for planned, threads in zip(plan.points, (1, 2), strict=False):
        engine = {"name": "deepspeed", "params": {"stage": 2}}
        attempt = store.begin(planned.train.key, planned.train.payload or {})
        write_curve(attempt.path, [])
        attempt.seal(None, seconds=90.0, threads=threads, engine=engine)
    evidence = Evidence(collect(plan, store))
    ran = dict(origin_of(evidence, store).ran)
    assert (ran["threads"], ran["engine"]) == ("1, 2", "deepspeed (stage: 2)")
    progress = progress_of(evidence, store)
    [train] = [kind for kind in progress.kinds if kind.name == "train"]
    assert (train.states["done"], train.states["missing"], train.seconds, train.mean) == (2, 2, 180.0, 90.0)
    assert not progress.complete
    states = [(trouble.state, trouble.point) for trouble in progress.troubles]
    assert [state for state, _ in states] == ["not all scored"] * 2 + ["not run"] * 2
    assert [point for _, point in states] == [planned.point.slug for planned in plan.points]


def test_a_point_that_was_stopped_early_is_told_with_its_reason(tiny_grid) -> None:
    grid = load_grid(tiny_grid())
    store = Store(grid.runtime.store)
    plan = make_plan(grid, Outer(store.root))
    planned = plan.points[0]
    write_curve(store.begin(planned.train.key, planned.train.payload or {}).path, [])
    Control(store.root).stop(planned.train.key.id, early="held-out loss 3.2 at 2 steps")
    [trouble] = [
        each for each in progress_of(Evidence(collect(plan, store)), store).troubles if each.point == planned.point.slug
    ]
    assert (trouble.state, trouble.reason) == (
        "stopped early",
        "held-out loss 3.2 at 2 steps; 0 steps; see search in the grid file",
    )


def test_a_checkout_has_a_commit_and_another_folder_none(tmp_path: Path) -> None:
    assert source_state(tmp_path) == ""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "a.py").write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout[:12]
    assert source_state(tmp_path) == f"git {commit}"
    (tmp_path / "a.py").write_text("2")
    assert source_state(tmp_path) == f"git {commit}, with changes that are not committed"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (5400, "1.5 h"), (100_000, "27.8 h"), (200_000, "2.3 days")],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_bytes_are_said_as_people_say_them() -> None:
    assert [bytes_of(count) for count in (12, 1500, 2.5e6, 3e9, 4e12)] == [
        "12 B",
        "1.5 kB",
        "2.5 MB",
        "3.0 GB",
        "4.0 TB",
    ]


def test_a_password_in_an_address_is_not_in_the_grid_that_is_shown(tiny_grid: TinyGrid) -> None:
    grid = load_grid(tiny_grid({"runtime.mlflow": "postgresql://kdray:c4nary@db:5432/mlflow"}))
    assert "c4nary" not in written(grid)
    assert "postgresql://kdray:***@db:5432/mlflow" in written(grid)
