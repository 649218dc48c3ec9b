"""Scoring as its inputs are made: a step begins when what it reads is done and there is room, while points still train.

Whatever is ready is cut into items by its stage and dealt out to actors that stay for the whole run. As long as
points train they have a share of the cluster; then they get all of it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kdray.orchestration.dropping import Dropping
from kdray.orchestration.items import Item
from kdray.orchestration.pipeline import Maker, Pipeline, too_large
from kdray.orchestration.resources import Resources
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.store import Attempt

TICK = 0.2  # seconds between looks at what actors have finished
PATIENCE = 5.0  # seconds for actors to end
LOOK = 2.0  # seconds between looks at what has become ready
Claimed = tuple[Step[Any], Attempt]


class Stage(Protocol):
    """One kind of step."""

    steps: Sequence[Step[Any]]

    def begin(self, claimed: Sequence[Claimed], hands: int) -> Sequence[Sequence[Item]]:
        """What is still to be done for attempts, in groups that one of `hands` actors does, by the steps' ids as keys.

        A step that cannot be done is failed here.
        """
        ...

    def finish(self, step: Step[Any], attempt: Attempt) -> None:
        """Seal an attempt of which all items are done, or fail it."""
        ...


@dataclass
class _Begun:
    """An attempt in progress, and how many of its items are not done yet."""

    stage: Stage
    step: Step[Any]
    attempt: Attempt
    items: int
    left: int
    error: str = ""


class Pools:
    """Actors that stay, and the groups that wait for one; as many as `room` gives units, now."""

    def __init__(self, make: Callable[[], Maker[Any]], resources: Resources, room: Callable[[], int]) -> None:
        self.make, self.resources, self.room = make, resources, room
        self.waiting: dict[int, list[Sequence[Item]]] = {}  # by the GPUs that an actor needs
        self.pipelines: list[Pipeline[Any]] = []

    @property
    def hands(self) -> int:
        """How many groups can be done side by side now."""
        return max(1, self.room())

    def put(self, group: Sequence[Item]) -> Iterator[tuple[str, str]]:
        """Take a group; (key, error) of its items if no node of the cluster can hold their model."""
        gpus = max(item.gpus for item in group)
        if self.resources.actors(gpus):
            self.waiting.setdefault(gpus, []).append(group)
        else:
            yield from ((item.key, too_large(gpus, self.resources)) for item in group)

    def finished(self) -> Iterator[tuple[str, str]]:
        """(key, error or "") of what has been finished; before that, idle actors get something to do."""
        for gpus, groups in self.waiting.items():
            if groups:
                self._make_room(gpus)
                self._grow(gpus, len(groups))
            for pipeline in self.pipelines:
                while groups and pipeline.gpus == gpus and pipeline.groups < pipeline.size:
                    suits = (group for group in groups if group[0].loads in pipeline.loaded and group[0].loads)
                    pipeline.put(group := next(suits, groups[0]))
                    groups.remove(group)
        for pipeline in self.pipelines:
            yield from pipeline.finished()

    def _make_room(self, gpus: int) -> None:
        """Let actors of another size go that have nothing to do."""
        for pipeline in list(self.pipelines):
            if pipeline.gpus != gpus and not pipeline.groups and not self.waiting.get(pipeline.gpus):
                pipeline.close()
                self.pipelines.remove(pipeline)

    def _grow(self, gpus: int, wanted: int) -> None:
        """More actors where groups wait and there is room for them."""
        idle = sum(pipeline.size - pipeline.groups for pipeline in self.pipelines if pipeline.gpus == gpus)
        taken = sum(pipeline.size * pipeline.gpus for pipeline in self.pipelines)
        size = min(self.resources.actors(gpus), (self.room() - taken) // gpus, wanted - idle)
        if size > 0:
            self.pipelines.append(Pipeline(self.make, self.resources, size, gpus))

    def close(self) -> None:
        """Let all actors go once they are done with what they have; wait for it, unless it takes long."""
        for pipeline in self.pipelines:
            pipeline.close()
        until = time.monotonic() + PATIENCE
        for pipeline in self.pipelines:
            pipeline.join(max(0.0, until - time.monotonic()))


class Scoring:
    """Does all missing steps of its stages, each as soon as it can be done.

    `training` says whether more steps may still become ready by what others do, `stopped` whether to leave off.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        work: Work,
        pools: Pools,
        training: Callable[[], bool] = lambda: False,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.stages, self.work, self.pools = stages, work, pools
        self.training, self.stopped = training, stopped
        self.dropping = Dropping(work)
        self.begun: dict[str, _Begun] = {}
        self.done = 0

    def run(self) -> None:
        """Until nothing is missing, or it is stopped."""
        total, looked, told = len(self._missing()), -LOOK, False
        self.dropping.all()
        try:
            with self.work.progress.bar("score", total, "steps") as bar:
                while not self.stopped():
                    if self._take_finished():
                        looked = -LOOK  # what they made may be what another step waits for
                    if time.monotonic() - looked > LOOK:
                        training = self.training()  # asked first: what is done by then is seen by the look
                        self._begin_ready()
                        looked = time.monotonic()
                        missing = [] if self.begun else self._missing()
                        if not self.begun and not missing:
                            bar.set(total)
                            self.dropping.all()
                            self.dropping.tell()
                            return
                        if missing and not training and not self._fail_orphans(missing) and not told:
                            self.work.progress.say(f"waiting for {self.work.holder(missing[0])}")
                            told = True
                    parts = sum(1 - begun.left / begun.items for begun in self.begun.values())
                    bar.set(round(self.done + parts, 1))
                    time.sleep(TICK)
        finally:
            self.pools.close()
            for begun in self.begun.values():
                self.work.locks.release(begun.attempt.folder)

    def _missing(self) -> list[Step[Any]]:
        return [step for stage in self.stages for step in self.work.missing(stage.steps)]

    def _fail_orphans(self, missing: Sequence[Step[Any]]) -> bool:
        """Fail the steps that read what nobody makes any more, such as a deleted checkpoint; whether any did."""
        ours, before = {step.key for stage in self.stages for step in stage.steps}, len(self.work.failed)
        for step in missing:
            for needed in self.work.needs(step):
                if needed.key not in ours and not self.work.store.get(needed.key):
                    self.work.fail(step, f"needs {needed.kind} {needed.slug}, which is gone")
                    break
        return len(self.work.failed) > before

    def _begin_ready(self) -> None:
        ready: list[Sequence[Item]] = []
        for stage in self.stages:
            claimed = self.work.claim_ready(step for step in stage.steps if step.key.id not in self.begun)
            if not claimed:
                continue
            groups = stage.begin(claimed, self.pools.hands)
            counts = Counter(item.key for group in groups for item in group)
            for step, attempt in claimed:
                self.begun[step.key.id] = _Begun(stage, step, attempt, counts[step.key.id], counts[step.key.id])
                if not counts[step.key.id]:
                    self._end(step.key.id)
            ready += groups
        models = {str(group[0].loads): i for i, group in reversed([*enumerate(ready)])}
        for group in sorted(ready, key=lambda group: models[str(group[0].loads)]):  # those of one model in a row
            self._take(self.pools.put(group))

    def _take_finished(self) -> bool:
        """Whether a step has ended."""
        before = self.done
        self._take(self.pools.finished())
        return self.done > before

    def _take(self, finished: Iterable[tuple[str, str]]) -> None:
        for key, error in finished:
            begun = self.begun[key]
            begun.left -= 1
            begun.error = begun.error or error
            if not begun.left:
                self._end(key)

    def _end(self, key: str) -> None:
        begun = self.begun.pop(key)
        if begun.error:
            self.work.fail(begun.step, begun.error)
        elif key not in self.work.failed:
            begun.stage.finish(begun.step, begun.attempt)
            if not self.work.store.get(begun.step.key) and key not in self.work.failed:
                self.work.fail(begun.step, "ended without a result")
        self.work.locks.release(begun.attempt.folder)
        self.dropping.after(begun.step)
        self.done += 1
        self.work.after()
