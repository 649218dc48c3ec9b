"""Weights of exports are dropped when nothing needs them any more, and never before."""

from __future__ import annotations

import io as texts
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from rich.console import Console

from kdray.artifacts.curve import write_curve
from kdray.cli.progress import Terminal
from kdray.orchestration.dropping import Dropping
from kdray.orchestration.items import Item
from kdray.orchestration.resources import Node, Resources
from kdray.orchestration.schedule import Pools, Scoring
from kdray.orchestration.work import Work, weights_read_by
from kdray.plan import Step, make_plan
from kdray.plan.gc import find_garbage
from kdray.report.chosen import steps_of
from kdray.spec.load import load_grid
from kdray.stages.train import lost
from kdray.store import Artifact, Attempt, Locks, Outer, Store
from tests.conftest import TinyGrid
from tests.orchestration.inline import InlineSeats

DROP = {"runtime.drop_exports": "scored"}
BEST = {"score.checkpoints": "best_heldout", "report.checkpoint": "best_heldout"}
MakeWork = Callable[..., Work]


@pytest.fixture
def make_work(tiny_grid: TinyGrid) -> Iterator[MakeWork]:
    """A run of the tiny grid with changes, of which only the first point is looked at."""
    with Locks() as locks, Terminal(Console(file=texts.StringIO(), width=200)) as progress:

        def make(changes: dict[str, Any]) -> Work:
            store = Store(tiny_grid.folder / "store")
            plan = make_plan(load_grid(tiny_grid(changes)), Outer(store.root))
            return Work(plan, store, Outer(store.root), locks, progress, Resources((Node(1, 0),), 1))

        yield make


def seal(work: Work, *steps: Step, **files: str) -> None:
    for step in steps:
        if not work.store.get(step.key):
            attempt = work.store.begin(step.key, step.payload or {})
            for name, content in files.items():
                (attempt.path / name.replace("_", ".")).write_text(content)
            attempt.seal(examples=1)


def export(work: Work, position: float) -> Artifact:
    made = work.store.get(work.plan.points[0].exports[position].key)
    assert made
    return made


def train(work: Work, *losses: float, done: bool = True) -> None:
    """The first point, with exports of these held-out losses."""
    planned, entries = work.plan.points[0], []
    for (at, step), loss in zip(planned.exports.items(), losses, strict=True):
        attempt = work.store.begin(step.key, step.payload or {})
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            (attempt.path / name).write_text("{}")
        attempt.seal(examples=int(2 * at))
        entries.append({"step": at, "examples": 2 * at, "tokens": 5, "loss": 1, "ce": 1, "heldout_ce": loss})
    if done:
        attempt = work.store.begin(planned.train.key, planned.train.payload or {})
        write_curve(attempt.path, entries)
        attempt.seal()


def scores(work: Work, position: float) -> list[Step]:
    """All steps that score a checkpoint of the first point."""
    point = work.plan.points[0].point
    return [step for s in work.plan.scores if (s.subject, s.position) == (point, position) for step in steps_of(s)]


def kept(work: Work) -> dict[float, bool]:
    """Which checkpoints of the first point have weights."""
    return {at: (export(work, at).path / "model.safetensors").is_file() for at in work.plan.points[0].exports}


def test_weights_are_dropped_with_the_last_score_that_reads_them_and_never_the_chosen_ones(make_work: MakeWork) -> None:
    work = make_work(DROP)
    train(work, 1.0, 2.0)
    dropping = Dropping(work)
    dropping.all()
    readers = [step for step in scores(work, 2) if weights_read_by(step)]
    assert len(readers) == 3
    for step in readers:
        assert kept(work) == {2: True, 4: True}, f"{step.slug} still needs them"
        seal(work, step)
        dropping.after(step)
    assert kept(work) == {2: False, 4: True}, "without them answers are still measured"
    seal(work, *scores(work, 4))
    dropping.all()
    assert kept(work) == {2: False, 4: True}, "the tables' checkpoint stays"
    assert dropping.dropped == 1


def test_what_is_dropped_counts_as_done_and_a_record_says_so(make_work: MakeWork) -> None:
    work = make_work(DROP)
    train(work, 1.0, 2.0)
    seal(work, *scores(work, 2))
    Dropping(work).all()
    made, key = export(work, 2), work.plan.points[0].exports[2].key
    assert sorted(path.name for path in made.path.iterdir()) == ["config.json", "tokenizer.json"]
    said = json.loads((made.folder / "dropped-attempt-001.json").read_text())
    assert said == {"bytes": 2, "files": ["model.safetensors"], "why": "runtime.drop_exports: scored"}
    assert work.store.state(key) == "done"
    assert work.store.verify(key.id) == []
    assert not [item for item in find_garbage([work.plan], work.store, 0.0) if item.path.is_relative_to(made.folder)]
    assert not {step.key for step in work.missing(work.plan.steps())} & {step.key for step in scores(work, 2)}
    assert not work.failed


def test_nothing_is_dropped_unless_the_grid_asks_for_it(make_work: MakeWork) -> None:
    work = make_work({})
    train(work, 1.0, 2.0)
    seal(work, *scores(work, 2))
    Dropping(work).all()
    assert kept(work) == {2: True, 4: True}


def test_of_checkpoints_to_choose_from_none_is_dropped_before_the_choice_and_then_the_others_at_once(
    make_work: MakeWork,
) -> None:
    work = make_work(DROP | BEST)
    train(work, 1.0, 2.0, done=False)
    Dropping(work).all()
    assert kept(work) == {2: True, 4: True}
    planned = work.plan.points[0]
    attempt = work.store.begin(planned.train.key, planned.train.payload or {})
    losses = {2: 1.0, 4: 2.0}
    entry = {"tokens": 5, "loss": 1, "ce": 1}
    write_curve(attempt.path, [{"step": at, "examples": 2 * at, "heldout_ce": x, **entry} for at, x in losses.items()])
    attempt.seal()
    Dropping(work).all()
    assert kept(work) == {2: True, 4: False}
    assert all(not work.is_dropped(step) for step in work.missing(scores(work, 2)))


def test_what_another_grids_driver_reads_is_not_dropped(make_work: MakeWork) -> None:
    work = make_work(DROP)
    other = make_work(DROP | {"score.batch": 3})
    train(work, 1.0, 2.0)
    seal(work, *scores(work, 2))
    theirs = next(step for step in scores(other, 2) if weights_read_by(step) and not work.store.get(step.key))
    work.store.begin(theirs.key, theirs.payload or {})
    with Locks(beat=0.05) as locks, pytest.MonkeyPatch.context() as patch:
        assert locks.try_acquire(work.store.folder(theirs.key))
        patch.setattr("time.time", lambda: 0.0)  # this machine's clock is wrong
        Dropping(work).all()
        assert kept(work)[2]
    Dropping(work).all()
    assert not kept(work)[2]


def test_a_new_score_of_dropped_weights_fails_with_one_line_that_says_what_to_train_again(make_work: MakeWork) -> None:
    work = make_work(DROP)
    train(work, 1.0, 2.0)
    seal(work, *scores(work, 2))
    Dropping(work).all()
    more = make_work(DROP | {"score.batch": 3})
    new = [step for step in scores(more, 2) if weights_read_by(step)]
    assert more.missing(new) == []
    folder = more.store.folder(more.plan.points[0].train.key)
    slug = more.plan.points[0].exports[2].slug
    assert set(more.failed.values()) == {
        f"needs the weights of {slug}, dropped once they were scored (runtime.drop_exports): to train that point again"
        f" remove {folder}"
    }
    assert more.missing(scores(more, 4)), "what is kept is scored"


def test_weights_that_are_wanted_again_wait_for_a_point_that_still_trains_and_are_exported_by_it(
    make_work: MakeWork,
) -> None:
    work = make_work(DROP)
    train(work, 1.0, 2.0, done=False)
    seal(work, *scores(work, 2))
    Dropping(work).all()
    assert not lost(work), "nothing is made again because of it"
    more = make_work(DROP | {"score.batch": 3})
    new = [step for step in scores(more, 2) if weights_read_by(step)]
    assert len(more.missing(new)) == len(new)
    assert not more.claim_ready(new)
    key = more.plan.points[0].exports[2].key
    assert lost(more) == {key}
    more.store.reopen(key)
    assert more.store.state(key) == "missing"
    seal(more, more.plan.points[0].exports[2], model_safetensors="new")
    assert not export(more, 2).dropped
    assert more.store.get(key)


def test_an_interrupted_drop_is_finished(make_work: MakeWork) -> None:
    work = make_work(DROP)
    train(work, 1.0, 2.0)
    seal(work, *scores(work, 2))
    made = export(work, 2)
    made.drop(["model.safetensors"], "test")
    (made.path / "model.safetensors").write_text("{}")  # as if it had not come to that
    Dropping(work).all()
    assert not kept(work)[2]


class Stage:
    """Scores each of its steps by an item that does nothing; keeps which it began."""

    def __init__(self, work: Work, steps: Sequence[Step]) -> None:
        self.work, self.steps, self.begun = work, steps, list[Step]()

    def begin(self, claimed: Sequence[tuple[Step, Attempt]]) -> list[list[Item]]:
        self.begun += [step for step, _ in claimed]
        return [[Item(key=step.key.id)] for step, _ in claimed]

    def finish(self, step: Step, attempt: Attempt) -> None:
        self.work.seal(step, attempt)


def test_a_run_scores_the_chosen_checkpoint_and_drops_the_others(
    make_work: MakeWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdray.orchestration.schedule.TICK", 0.0)
    monkeypatch.setattr("kdray.orchestration.schedule.LOOK", 0.0)
    monkeypatch.setattr(InlineSeats, "made", [])
    work = make_work(DROP | BEST)
    train(work, 1.0, 2.0)
    every = list({step.key: step for at in (2, 4) for step in scores(work, at)}.values())
    seal(work, *(needed for step in every for needed in step.inputs.steps if needed not in every))
    stage = Stage(work, every)
    start = partial(InlineSeats, lambda: lambda item: None, None)
    Scoring([stage], work, Pools(start, work.resources, lambda: 1)).run()
    assert {step.key for step in stage.begun} == {step.key for step in scores(work, 2)}
    assert not work.failed
    assert kept(work) == {2: True, 4: False}
