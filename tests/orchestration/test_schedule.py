"""Steps are scored as soon as their inputs are there, by actors that fit, and whatever fails takes nothing with it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from kdray.cli.progress import Terminal
from kdray.orchestration.pools import Item, Pools
from kdray.orchestration.resources import Node, Resources
from kdray.orchestration.schedule import Scoring, points_training
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import Inputs, TrainInputs
from kdray.spec import InputError
from kdray.store import Attempt, Locks, Outer, Store
from tests.orchestration.inline import InlineSeats


@dataclass(frozen=True, kw_only=True)
class Reads(Inputs):
    """Whatever a step reads."""

    made: tuple[Step, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Piece(Item):
    model: str = ""
    error: str = ""

    @property
    def loads(self) -> object:
        return self.model


def step(name: str, *reads: Step) -> Step:
    return Step("measure", name, {"params": {}, "name": name, "inputs": {}}, Reads(made=reads))


IDLE = partial(InlineSeats, lambda: lambda item: None, None)
Pieces = list[tuple[Step, list[list[Piece]]]]


class Stage:
    """Cuts each of its steps into the pieces that are given by its name."""

    def __init__(self, work: Work, pieces: Pieces) -> None:
        self.steps, self.work = [made for made, _ in pieces], work
        self.pieces = {made.slug: groups for made, groups in pieces}
        self.begun: list[str] = []

    def begin(self, claimed: Sequence[tuple[Step, Attempt]]) -> list[list[Item]]:
        self.begun += [step.slug for step, _ in claimed]
        return [list(group) for step, _ in claimed for group in self.pieces[step.slug]]

    def finish(self, step: Step, attempt: Attempt) -> None:
        if step.slug != "forgotten":
            self.work.seal(step, attempt)


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Work]:
    store = Store(tmp_path)
    with Locks() as locks, Terminal(Console(file=io.StringIO(), width=400)) as progress:
        nothing: Any = SimpleNamespace(points=[], scores=[])
        yield Work(nothing, store, Outer(tmp_path), locks, progress, Resources((Node(4, 0),), 1))


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> list[InlineSeats]:
    monkeypatch.setattr("kdray.orchestration.schedule.TICK", 0.0)
    monkeypatch.setattr("kdray.orchestration.schedule.LOOK", 0.0)
    monkeypatch.setattr(InlineSeats, "made", [])
    return InlineSeats.made


def scoring(work: Work, pieces: Pieces, **how: Callable[[], bool]) -> tuple[Stage, list[str]]:
    """What became of the steps, and the keys of their items in the order in which they were done."""
    done: list[str] = []

    def make() -> Callable[[Piece], None]:
        def do(piece: Piece) -> None:
            done.append(f"{piece.key}{piece.model}")
            if piece.error:
                raise RuntimeError(piece.error)

        return do

    stage = Stage(work, pieces)
    Scoring([stage], work, Pools(partial(InlineSeats, make, None), work.resources, lambda: 1), **how).run()
    return stage, done


def said(work: Work) -> str:
    """All that was told on the terminal."""
    return work.progress.console.file.getvalue()  # type: ignore[attr-defined]


def of(made: Step, **fields: Any) -> Piece:
    return Piece(key=made.key.id, **fields)


def make(work: Work, made: Step) -> None:
    work.store.begin(made.key, made.payload or {}).seal()


def test_a_step_begins_when_what_it_reads_is_done_even_while_points_train(work: Work) -> None:
    early, late = step("point a"), step("point b")
    make(work, early)
    first, second, after = step("first", early), step("second", late), step("after", step("first", early))
    looks: list[bool] = []

    def training() -> bool:
        looks.append(work.store.get(first.key) is not None and work.store.get(after.key) is not None)
        if looks[-1] and not work.store.get(late.key):
            make(work, late)  # not before all that needs it not has been scored
        return not work.store.get(second.key)

    stage, _ = scoring(work, [(made, [[of(made)]]) for made in (after, second, first)], training=training)
    assert stage.begun == ["first", "after", "second"]
    assert not work.failed


def test_what_needs_a_failed_step_is_failed_and_all_else_is_scored(work: Work) -> None:
    broken, other = step("broken"), step("other")
    needs = step("needs", broken)
    _, done = scoring(
        work,
        [
            (broken, [[of(broken, error="no"), of(broken)], [of(broken, error="later")]]),
            (needs, [[of(needs)]]),
            (other, [[of(other)]]),
        ],
    )
    assert work.failed == {broken.key.id: "RuntimeError: no", needs.key.id: "needs measure broken"}
    assert work.store.get(other.key)
    assert len(done) == 4, "an item that fails takes no other with it"


def test_what_reads_something_that_is_gone_is_failed_when_nothing_trains(work: Work) -> None:
    gone, there = step("gone"), step("there")
    make(work, there)
    needs, after, other = step("needs", gone), step("after", step("needs", gone)), step("other", there)
    scoring(work, [(made, [[of(made)]]) for made in (after, needs, other)])
    assert work.failed[needs.key.id] == "needs measure gone, which is gone"
    assert work.failed[after.key.id] == "needs measure needs"
    assert work.store.get(other.key)


def test_an_attempt_that_leaves_nothing_has_failed_and_one_without_items_is_finished_at_once(work: Work) -> None:
    forgotten, whole = step("forgotten"), step("whole")
    _, done = scoring(work, [(forgotten, [[of(forgotten)]]), (whole, [])])
    assert work.failed == {forgotten.key.id: "ended without a result"}
    assert work.store.get(whole.key)
    assert len(done) == 1


def test_items_of_one_model_follow_each_other_whatever_step_they_are_of(work: Work) -> None:
    first, second = step("first"), step("second")
    groups = [(made, [[of(made, model=model)] for model in ("A", "B")]) for made in (first, second)]
    _, done = scoring(work, groups)
    assert [key[-1] for key in done] == ["A", "A", "B", "B"]


def test_an_error_of_its_own_is_one_line_and_fails_what_is_left(work: Work, inline: list[InlineSeats]) -> None:
    first, second, after = step("first"), step("second"), step("after", step("second"))
    told: list[str] = []
    work.failing = told.append

    def finish(stage: Stage, made: Step, attempt: Attempt) -> None:
        if made is second:
            raise KeyError("[rouge]")
        work.seal(made, attempt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "finish", finish)
        scoring(work, [(made, [[of(made)]]) for made in (first, second, after)])
    assert work.store.get(first.key)
    [kept] = work.store.root.glob("errors/scoring-*.txt")
    reason = f"KeyError: '[rouge]' (the traceback is in {kept})"
    assert work.failed == {second.key.id: reason, after.key.id: reason}
    assert said(work).splitlines()[-1] == f"scoring has stopped, all else goes on: {reason}"
    assert told == [f"scoring has stopped: {reason}"]
    assert "in finish" in kept.read_text()
    assert work.locks.try_acquire(work.store.folder(second.key)), "the next run may try it"
    assert inline[-1].closed


def test_an_error_is_said_where_its_traceback_cannot_be_kept(work: Work) -> None:
    (work.store.root / "errors").write_text("no folder")
    said = work.keep_error("scoring", KeyError("rouge"))
    assert said == "KeyError: 'rouge' (its traceback cannot be kept: File exists)"


def test_what_the_user_got_wrong_and_what_fails_when_it_is_stopped_is_raised(work: Work) -> None:
    only = step("only")

    def fail(error: Exception) -> None:
        raise error

    for error, stopped in ((InputError("scores.json", "damaged", "remove it"), False), (OSError("gone"), True)):
        looks = iter([False, stopped])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Stage, "begin", lambda *_, error=error: fail(error))
            with pytest.raises(type(error)):
                scoring(work, [(only, [[of(only)]])], stopped=lambda looks=looks: next(looks))
    assert not work.failed
    assert not (work.store.root / "errors").exists()


def test_it_leaves_off_when_stopped_and_gives_its_locks_back(work: Work, inline: list[InlineSeats]) -> None:
    only = step("only")
    times = iter([False, False, True])
    InlineSeats.finished, kept = lambda _: iter(()), InlineSeats.finished  # type: ignore[method-assign]
    try:
        scoring(work, [(only, [[of(only)]])], stopped=lambda: next(times))
    finally:
        InlineSeats.finished = kept  # type: ignore[method-assign]
    assert work.store.get(only.key) is None
    assert work.locks.try_acquire(work.store.folder(only.key))
    assert [pipeline.closed for pipeline in inline] == [True]
    assert inline[-1].waited == 0, "what an actor has in hand may take minutes"


def test_it_waits_for_actors_that_have_nothing_to_do_any_more(work: Work, inline: list[InlineSeats]) -> None:
    only = step("only")
    scoring(work, [(only, [[of(only)]])])
    assert work.store.get(only.key)
    assert inline[-1].waited > 0


def group(key: str, gpus: int = 1, model: str = "") -> list[Item]:
    return [Piece(key=key, gpus=gpus, model=model)]


def test_aligned_points_train_when_no_others_do_and_their_answers_are_there(work: Work) -> None:
    def point(name: str, pairs: Step | None = None) -> Step[TrainInputs]:
        inputs = TrainInputs(student=step("student"), data=step("data"), pairs=pairs)
        return Step("train", name, {"params": {}, "name": name, "inputs": {}}, inputs)

    def seal(*made: Step) -> None:
        for each in made:
            work.store.begin(each.key, each.payload or {}).seal()

    seal(step("student"), step("data"))
    answers = [step("cited 0"), step("cited 1")]
    plain, aligned = [point("0"), point("1")], [point(f"{i} aligned", pairs) for i, pairs in enumerate(answers)]

    def count() -> int:
        return points_training([*plain, *aligned], work)

    assert count() == 2
    seal(plain[0], answers[0])
    assert count() == 1
    seal(plain[1])
    assert count() == 0, "all of the cluster is for the answers that are still missing"
    seal(answers[1])
    assert count() == 2
    seal(aligned[0])
    assert count() == 1


def test_actors_fit_their_models_and_the_room_that_there_is(inline: list[InlineSeats]) -> None:
    room = [1]
    pools = Pools(IDLE, Resources((Node(8, 4), Node(8, 4)), 1), lambda: room[0])
    assert list(pools.put(group("too large", gpus=5))) == [
        ("too large", "the model needs 5 GPUs of one node; the largest has 4")
    ]
    for i in range(3):
        assert not list(pools.put(group(str(i))))
    assert [key for key, _ in pools.finished()] == ["0"]
    assert [(made.size, made.gpus) for made in inline] == [(1, 1)]
    room[0] = 8
    assert [key for key, _ in pools.finished()] == ["1", "2"]
    assert [(made.size, made.gpus) for made in inline] == [(1, 1), (1, 1)], "one more: no more had to wait"
    assert not list(pools.put(group("large", gpus=4)))
    assert [key for key, _ in pools.finished()] == ["large"]
    assert [(made.size, made.gpus, made.closed) for made in inline] == [(1, 1, True), (1, 1, True), (1, 4, False)]
    pools.close()
    assert inline[-1].closed


def test_a_model_that_an_actor_has_goes_first(inline: list[InlineSeats]) -> None:
    pools = Pools(IDLE, Resources((Node(1, 0),), 1), lambda: 1)
    done = []
    for key, model in (("0", "A"), ("1", "B"), ("2", "A"), ("3", "")):
        list(pools.put(group(key, model=model)))
    while len(done) < 4:
        done += [key for key, _ in pools.finished()]
    assert done == ["0", "2", "1", "3"]
    assert len(inline) == 1


class Chosen:
    """Of two checkpoints the one that is known to be better once `by` is done, the other until then."""

    def __init__(self, work: Work, by: Step, better: Step, other: Step) -> None:
        self.work, self.by, self.better, self.other = work, by, better, other

    def before(self, step: Step) -> list[Step]:
        return [self.by] if step in (self.better, self.other) and not self.work.store.get(self.by.key) else []

    def wants(self, step: Step) -> bool:
        unwanted = self.other if self.work.store.get(self.by.key) else self.better
        return step is not unwanted


@pytest.mark.parametrize("fails", [False, True])
def test_only_the_chosen_checkpoint_is_scored_and_none_without_a_choice(work: Work, fails: bool) -> None:
    by, better, other = step("by"), step("better"), step("other")
    work.__dict__["choices"] = Chosen(work, by, better, other)
    pieces: Pieces = [(made, [[of(made)]]) for made in (other, better)]
    stage, done = scoring(work, [*pieces, (by, [[of(by, error="no" if fails else "")]])])
    assert stage.begun == (["by"] if fails else ["by", "better"])
    assert done == [made.key.id for made in ([by] if fails else [by, better])]
    assert work.failed == ({by.key.id: "RuntimeError: no", other.key.id: "needs measure by"} if fails else {})
