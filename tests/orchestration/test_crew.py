"""A run's actors: without GPUs they stay for the next maker, and rest in between with nothing loaded."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import ray

from kdray.orchestration.crew import Crew, Maker, Seats
from kdray.orchestration.pools import Item
from kdray.orchestration.resources import Node, Resources
from kdray.orchestration.session import end

RESOURCES = Resources((Node(2, 0),), 1)


@dataclass(frozen=True, kw_only=True)
class Noted(Item):
    folder: Path
    seconds: float = 0.0


class Noter:
    """Notes its process, and the kinds of makers that live in it."""

    living: ClassVar[list[str]] = []

    def __init__(self, kind: str) -> None:
        if kind == "unmakeable":
            raise ValueError("no such model")
        self.kind = kind
        self.living.append(kind)

    def __call__(self, item: Noted) -> None:
        (item.folder / item.key).write_text(f"{os.getpid()} {' '.join(self.living)}")
        time.sleep(item.seconds)

    def __del__(self) -> None:
        if hasattr(self, "kind"):
            self.living.remove(self.kind)


def begin_ray() -> None:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


@pytest.fixture
def crew() -> Iterator[Crew]:
    begin_ray()
    try:
        yield Crew()
    finally:
        end()


def done(seats: Seats[Noted], *groups: list[Noted]) -> dict[str, str]:
    """The errors of all items, by their keys."""
    for group in groups:
        seats.put(group)
    errors, until = dict[str, str](), time.monotonic() + 300
    while seats.groups:
        assert time.monotonic() < until
        errors |= dict(seats.finished())
        time.sleep(0.05)
    return errors


def makes(kind: str) -> partial[Maker[Noted]]:
    return partial(Noter, kind)


@pytest.mark.ray
def test_actors_stay_for_whoever_comes_next(crew: Crew, tmp_path: Path) -> None:
    def noted(*keys: str, seconds: float = 0.0) -> list[Noted]:
        return [Noted(key=key, folder=tmp_path, seconds=seconds) for key in keys]

    def read(key: str) -> tuple[int, str]:
        process, living = (tmp_path / key).read_text().split(maxsplit=1)
        return int(process), living

    crew.begin(RESOURCES)
    first = crew.start(makes("first"), RESOURCES, 2, 1)
    assert done(first, noted("a", seconds=1), noted("b", seconds=1)) == {"a": "", "b": ""}
    first.close()
    both = {read("a")[0], read("b")[0]}
    assert len(both) == 2
    assert len(crew._pipelines) == 1, "those that began to rest"

    # One of them alone, whatever comes; the other one rests, and neither has kept what the first maker was.
    second = crew.start(makes("second"), RESOURCES, 1, 1)
    assert done(second, noted("c", "d")) == {"c": "", "d": ""}
    assert done(second, noted("e")) == {"e": ""}
    at_work = {read(key) for key in "cde"}
    assert len(at_work) == 1
    assert {process for process, _ in at_work} < both
    assert {living for _, living in at_work} == {"second"}

    # The other one is free for somebody else, whose maker cannot be made; and then for one whose can.
    third = crew.start(makes("unmakeable"), RESOURCES, 1, 1)
    assert done(third, noted("f", "g")) == dict.fromkeys("fg", "ValueError: no such model")
    third.close()
    fourth = crew.start(makes("fourth"), RESOURCES, 1, 1)
    assert done(fourth, noted("h")) == {"h": ""}
    assert read("h")[0] in both  # either: Ray says which of those that are idle goes to rest
    assert read("h")[1] == "fourth"

    # Killed while it rests or works, an actor comes back and goes on with that.
    fourth.close()
    time.sleep(1)
    os.kill(read("h")[0], signal.SIGKILL)
    second.put(noted("i", seconds=1))
    while not (tmp_path / "i").exists():
        time.sleep(0.05)
    os.kill(read("i")[0], signal.SIGKILL)
    assert done(second) == {"i": ""}
    second.close()

    # More than there are: these go, others come.
    assert done(crew.start(makes("fifth"), RESOURCES, 3, 1), noted("j")) == {"j": ""}
    assert read("j")[0] not in both


@pytest.mark.ray
def test_none_is_left_to_the_next_ray_of_a_process(crew: Crew, tmp_path: Path) -> None:
    """Neither of those that have not come up when Ray ends, nor of those that are at work."""
    seats = crew.start(makes("first"), RESOURCES, 1, 1)
    seats.put([Noted(key="a", folder=tmp_path, seconds=600)])
    while not (tmp_path / "a").exists():
        time.sleep(0.05)
    crew.begin(RESOURCES)
    threads = [pipeline.thread for pipeline in crew._pipelines]
    assert [thread.is_alive() for thread in threads] == [True, True]
    end()
    assert [thread.is_alive() for thread in threads] == [False, False]
    begin_ray()
    assert done(Crew().start(makes("second"), RESOURCES, 1, 1), [Noted(key="b", folder=tmp_path)]) == {"b": ""}
