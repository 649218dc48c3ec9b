"""What an actor gets: large pieces at first and small ones in the end, bound ones whole, the largest models first."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest

from kdray.orchestration.pools import Item, Pools, at_hand, cut, deal_out, in_rows, longest_first, pieces
from kdray.orchestration.resources import Node, Resources
from tests.orchestration.inline import InlineSeats

IDLE = partial(InlineSeats, lambda: lambda item: None, None)


@dataclass(frozen=True, kw_only=True)
class Bound(Item):
    model: str = ""
    to: str | None = None

    @property
    def loads(self) -> object:
        return [self.model]  # as what a metric loads is named: it cannot be hashed

    @property
    def bound(self) -> str | None:
        return self.to


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[InlineSeats]:
    monkeypatch.setattr(InlineSeats, "made", [])
    return InlineSeats.made


def test_the_longest_is_first_and_equals_keep_their_order() -> None:
    assert longest_first({"short": 3.0, "long": 40.0, "like short": 3.0}) == ["long", "short", "like short"]


def test_the_least_rank_is_first_however_long_it_takes() -> None:
    expected = {"short": 3.0, "long": 40.0, "longest": 50.0, "first": 1.0}
    ranks = {"short": 1, "long": 1, "longest": 2, "first": 0}
    assert longest_first(expected, ranks) == ["first", "long", "short", "longest"]


@pytest.mark.parametrize(
    ("engines", "models", "each"),
    [
        (4, 1, [4]),
        (4, 3, [2, 1, 1]),
        (4, 4, [1, 1, 1, 1]),
        (4, 6, [1, 1, 1, 1, 2, 2]),
        (1, 3, [1, 1, 1]),
        (8, 3, [3, 3, 2]),
    ],
)
def test_the_last_models_share_all_engines(engines: int, models: int, each: list[int]) -> None:
    assert deal_out(engines, models) == each


def test_a_cut_never_parts_what_is_bound() -> None:
    group = [Bound(key=str(i), to=to) for i, to in enumerate([None, None, "a", "a", "a", "b", None])]
    assert [len(cut(group, items)[0]) for items in range(1, 8)] == [1, 2, 5, 5, 5, 6, 7]
    assert all([*first, *rest] == group for first, rest in (cut(group, items) for items in range(1, 8)))
    assert pieces(group) == 5


def test_groups_of_a_model_are_in_a_row() -> None:
    groups = [[Bound(key=key, model=model)] for key, model in (("0", "A"), ("1", "B"), ("2", "A"))]
    assert [group[0].key for group in in_rows(groups)] == ["0", "2", "1"]


def test_pieces_become_smaller_so_that_all_end_together(made: list[InlineSeats]) -> None:
    pools = Pools(IDLE, Resources((Node(8, 4),), 1), lambda: 4)
    list(pools.put([Bound(key=str(i), model="A") for i in range(64)]))
    taken, actor = list[int](), IDLE(4, 1)
    while pools.items[1]:
        taken.append(len(pools.next_group(actor)))
    assert taken[:3] == [8, 7, 7]
    assert taken == sorted(taken, reverse=True)
    assert taken[-4:] == [1, 1, 1, 1]
    assert sum(taken) == 64


def test_actors_begin_with_a_model_each_and_stay_with_it(made: list[InlineSeats]) -> None:
    pools = Pools(IDLE, Resources((Node(2, 0),), 1), lambda: 2)
    for model in "AB":
        list(pools.put([Bound(key=f"{model}{i}", model=model) for i in range(8)]))
    pools.pipelines = [IDLE(1, 1), IDLE(1, 1)]
    loads = [list[object](), list[object]()]
    for turn in range(4):
        pipeline = pools.pipelines[turn % 2]
        list(pipeline.finished())
        pipeline.put(pools.next_group(pipeline))
        loads[turn % 2] += pipeline.hands.loaded
    assert loads == [[["A"], ["A"]], [["B"], ["B"]]]


def test_whoever_of_a_pipeline_is_done_first_goes_on_with_its_own_model(made: list[InlineSeats]) -> None:
    pools = Pools(IDLE, Resources((Node(2, 0),), 1), lambda: 2)
    for model in "AB":
        list(pools.put([Bound(key=f"{model}{i}", model=model) for i in range(8)]))
    pipeline = IDLE(2, 1)
    pools.pipelines = [pipeline]
    for model in "AB":
        group = pools.next_group(pipeline)
        assert (group[0].loads, pipeline.hands.give(group)) == ([model], "AB".index(model))
    pipeline.hands.take_back(1)
    for number in (2, 3):  # not of A, though it waits in the first place
        group = pools.next_group(pipeline)
        assert (group[0].loads, pipeline.hands.give(group)) == (["B"], number)
        assert pipeline.hands.loaded == [["A"], ["B"]]
        pipeline.hands.take_back(number)
    pipeline.hands.take_back(0)
    assert pipeline.hands.idle == [["B"], ["A"]]
    groups = [[Bound(key=model, model=model)] for model in "ABC"]
    assert [at_hand(groups, [model]) for model in "BXC"] == [1, 0, 2]


def test_the_largest_models_get_their_actors_first_and_only_as_many_as_nodes_hold(made: list[InlineSeats]) -> None:
    pools = Pools(IDLE, Resources((Node(8, 8), Node(8, 8)), 4), lambda: 8)
    for gpus in (1, 3):
        list(pools.put([Bound(key=str(gpus), gpus=gpus)] * 40))
    list(pools.finished())
    assert [(each.size, each.gpus) for each in made] == [(2, 3), (2, 1)]  # not 2 and 2/3 actors of 3 GPUs
    whole = Resources((Node(8, 8), Node(8, 8)), 4)
    assert [whole.actors(3, room) for room in (0, 2, 3, 8, 10, 11, 16)] == [0, 0, 1, 2, 2, 3, 4]


def test_actors_go_once_they_are_idle_where_points_train_again(made: list[InlineSeats]) -> None:
    room = 4
    pools = Pools(IDLE, Resources((Node(16, 4),), 1), lambda: room)
    list(pools.put([Bound(key=str(i), model="A") for i in range(8)]))
    while pools.items[1]:
        list(pools.finished())
    room = 1
    assert [(each.size, each.closed) for each in made] == [(4, False)]
    list(pools.finished())
    assert [each.closed for each in made] == [True]
    list(pools.put([Bound(key="more", model="A")]))
    assert [key for key, _ in pools.finished()] == ["more"]
    assert [(each.size, each.closed) for each in made] == [(4, True), (1, False)]


def test_on_the_only_gpu_parts_are_used_as_points_leave_them_and_then_the_whole(made: list[InlineSeats]) -> None:
    room = 0
    pools = Pools(IDLE, Resources((Node(16, 1),), 1, per_gpu=6), lambda: room)
    for gpus in (1, 6):
        list(pools.put([Bound(key=str(gpus), gpus=gpus, model=str(gpus))] * 6))
    assert list(pools.put([Bound(key="large", gpus=12)])) == [
        ("large", "the model needs 2 GPUs of one node; the largest has 1")
    ]
    done = list[str]()
    for room in (0, 2, 6, 6, 6, 6, 6):
        done += [key for key, _ in pools.finished()]
        assert sum(each.size * each.gpus for each in pools.pipelines) <= 6
        if not room:
            assert not made
    assert [(each.size, each.gpus) for each in made] == [(2, 1), (2, 1), (1, 6)]
    assert sorted(done) == ["1"] * 6 + ["6"] * 6
