"""Answers and scores of all models, each as soon as its inputs are there: the steps `generate` and `measure` together.

An actor answers and measures, so that it loads a model once for both.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kdray.models.load import Latest
from kdray.models.loaded import Loaded, load_as
from kdray.orchestration.items import PromptBatch
from kdray.orchestration.measurer import Measurement, Measurer
from kdray.orchestration.pools import Item, Pools
from kdray.orchestration.schedule import Scoring, points_training
from kdray.orchestration.work import Work
from kdray.report.costs import costs
from kdray.stages.generate import Generating, Generator
from kdray.stages.measure import Measuring
from kdray.store import io

LOADS = "loads"


def score(
    stages: Sequence[Generating | Measuring],
    work: Work,
    training: Callable[[], bool] = lambda: False,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Make the missing steps of the stages; more may become possible as long as points are `training`."""
    if not any(stage.steps for stage in stages):
        return
    loads, points = work.scratch / LOADS, [point.train for point in work.plan.points]

    def room() -> int:
        return work.resources.scoring(points_training(points, work) if training() else 0)

    start = functools.partial(work.crew.start, functools.partial(Scorer, loads), work.resources)
    Scoring(stages, work, Pools(start, work.resources, room), training, stopped).run()
    if loads.is_file():
        seconds = [float(line) for line in loads.read_text().splitlines()]
        work.progress.say(f"score: weights loaded {len(seconds)} times in {statistics.fmean(seconds):.1f} s each")
        io.delete(loads)
    for line in costs(work.plan.scores, work.store):
        work.progress.say(line)


class Scorer:
    """Answers a batch of prompts or does a measurement; keeps the model that it loaded last.

    `loads` gets a line a load: its seconds.
    """

    def __init__(self, loads: Path) -> None:
        self.loads = loads
        load = Latest(self._load)
        self.generate, self.measure = Generator(load), Measurer(load)

    def __call__(self, item: Item) -> None:
        if isinstance(item, PromptBatch):
            self.generate(item)
        else:
            assert isinstance(item, Measurement)
            self.measure(item)

    def _load(self, folder: Path, dtype: str) -> Loaded:
        started = time.monotonic()
        loaded = load_as(folder, dtype)
        self.loads.parent.mkdir(parents=True, exist_ok=True)
        with self.loads.open("a") as log:
            log.write(f"{time.monotonic() - started:.2f}\n")
        return loaded
