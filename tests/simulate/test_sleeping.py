"""A simulated run beside a real one on made-up GPUs, whose points and pieces only sleep."""

from __future__ import annotations

import functools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kdray.cost.estimate import StepCost
from kdray.orchestration.pools import Item, Pools, longest_first
from kdray.orchestration.resources import Node, Resources
from kdray.simulate.run import simulate
from kdray.simulate.todo import Piece, PointWork, ScoreWork, Todo

POINTS = {f"p{i}": seconds for i, seconds in enumerate([20.0, 35.0, 20.0, 30.0, 25.0, 20.0])}
PIECES, PIECE = 12, 2.0  # of each point's score, and the seconds of one
RESOURCES = Resources((Node(8, 8),), 2, beside=2)


class Sleeper:
    def __call__(self, item: Item) -> None:
        assert isinstance(item, Piece)
        time.sleep(item.seconds)


def _sleep(folder: Path, name: str, seconds: float) -> None:
    (folder / f"{name} began").touch()
    time.sleep(seconds)
    (folder / f"{name} done").touch()


def _trial(config: dict[str, Any], folder: Path) -> None:
    import ray

    name = config["point"]
    ray.get(ray.remote(_sleep).options(num_cpus=0, num_gpus=RESOURCES.workers).remote(folder, name, POINTS[name]))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.nightly
def test_a_simulation_is_within_15_percent_of_sleeping_points(tmp_path: Path) -> None:
    import ray
    import ray.data

    from kdray.orchestration.crew import Crew
    from kdray.orchestration.session import end
    from kdray.stages.train import run_trials

    groups = {
        name: [Piece(key=name, seconds=PIECE, model=name)] * PIECES for name in POINTS
    }  # of one model, to be had once the point has trained
    ray.init(address="local", num_cpus=8, num_gpus=8, include_dashboard=False, log_to_driver=False)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        trial = ray.tune.with_parameters(_trial, folder=tmp_path)
        order = longest_first(POINTS)
        thread = ThreadPoolExecutor(1)
        left = dict.fromkeys(POINTS, PIECES)

        def room() -> int:
            return RESOURCES.scoring(sum(not (tmp_path / f"{name} done").exists() for name in POINTS))

        pools = Pools(functools.partial(Crew().start, Sleeper, RESOURCES), RESOURCES, room)
        trials = thread.submit(run_trials, trial, order, RESOURCES.points_beside, tmp_path / "tune")
        until = time.monotonic() + 600
        put = set[str]()
        while any(left.values()):
            assert time.monotonic() < until, left
            assert not trials.done() or trials.result() == {}, "a trial failed"
            for name in set(POINTS) - put:
                if (tmp_path / f"{name} done").exists():
                    put.add(name)
                    assert not list(pools.put(groups[name]))
            for key, error in pools.finished():
                assert not error
                left[key] -= 1
            time.sleep(0.2)
        took = time.time() - min(path.stat().st_mtime for path in tmp_path.glob("* began"))
        pools.close()
    finally:
        end()
    points = [PointWork(name, StepCost("train", 2, seconds, 1.0), {name: seconds}) for name, seconds in POINTS.items()]
    scores = [
        ScoreWork(
            f"{name} scored",
            frozenset({name}),
            [Piece(key=f"{name} scored", seconds=PIECE, model=name)] * PIECES,
            answers=True,
        )
        for name in POINTS
    ]
    simulated = simulate(Todo([], points, scores), RESOURCES).makespan * 3600
    assert took == pytest.approx(simulated, rel=0.15)
