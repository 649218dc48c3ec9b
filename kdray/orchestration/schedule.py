"""Scoring as its inputs are made: a step begins when what it reads is done and there is room, while points still train.

Whatever is ready is cut into items by its stage and dealt out to actors that stay for the whole run. As long as
points train they have a share of the cluster; then they get all of it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rich.markup import escape

from kdray.orchestration.dropping import Dropping
from kdray.orchestration.pools import PATIENCE, Item, Pools, in_rows
from kdray.orchestration.work import Work
from kdray.plan import Step
from kdray.plan.inputs import TrainInputs
from kdray.spec.errors import InputError
from kdray.store import Attempt

TICK = 0.2  # seconds between looks at what actors have finished
LOOK = 2.0  # seconds between looks at what has become ready
Claimed = tuple[Step[Any], Attempt]


def points_training(points: Sequence[Step[TrainInputs]], work: Work) -> int:
    """How many of the missing points train, or wait for a place: those that are aligned do not before all others have
    trained and the answers are there that they learn from.
    """
    missing = work.missing(points)
    plain = [point for point in missing if not point.inputs.pairs]
    if plain or work.missing([point.inputs.pairs for point in missing if point.inputs.pairs]):
        return len(plain)
    return len(missing)


class Stage(Protocol):
    """One kind of step."""

    steps: Sequence[Step[Any]]

    def begin(self, claimed: Sequence[Claimed]) -> Sequence[Sequence[Item]]:
        """What is still to be done for attempts, in a group for each model, by the steps' ids as keys.

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
        """Until nothing is missing, or it is stopped. An error of its own fails what is missing then.

        Raises:
            InputError: a file in the store is damaged.
        """
        try:
            self._run()
        except InputError:
            raise
        except Exception as error:
            if self.stopped():
                raise  # the run ends, and with it what scoring reads
            reason = self.work.keep_error("scoring", error)
            self.work.progress.say(f"[red]scoring has stopped[/], all else goes on: {escape(reason)}")
            self.work.failing(f"scoring has stopped: {reason}")
            for step in self._missing():
                self.work.fail(step, reason, quiet=True)

    def _run(self) -> None:
        total, looked, told, patience = len(self._missing()), -LOOK, False, 0.0
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
                            patience = PATIENCE
                            return
                        if missing and not training and not self._fail_orphans(missing) and not told:
                            self.work.progress.say(f"waiting for {self.work.holder(missing[0])}")
                            told = True
                    parts = sum(1 - begun.left / begun.items for begun in self.begun.values())
                    bar.set(round(self.done + parts, 1))
                    time.sleep(TICK)
        finally:
            self.pools.close(patience)  # who leaves off waits for nobody: an actor may be in the middle of minutes
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
            groups = stage.begin(claimed)
            counts = Counter(item.key for group in groups for item in group)
            for step, attempt in claimed:
                self.begun[step.key.id] = _Begun(stage, step, attempt, counts[step.key.id], counts[step.key.id])
                if not counts[step.key.id]:
                    self._end(step.key.id)
            ready += groups
        for group in in_rows([group for group in ready if group]):
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
