"""Weights of exported checkpoints that no score needs any more are dropped, where `runtime.drop_exports` says so.

An export stays a finished artifact: its tokenizer and configuration are there, its scores and answers too, and a record
beside them says what was dropped. Only what reads the weights themselves, such as a new task, cannot be made any more.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path

from kdray.orchestration.work import Work, weights_read_by
from kdray.plan import Step
from kdray.plan.steps import PointPlan
from kdray.report.chosen import steps_of
from kdray.spec.points import Point
from kdray.store import Artifact, Key, io
from kdray.store.locks import DONE, DRIVERS, working
from kdray.store.store import RECORD

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
WHY = "runtime.drop_exports: scored"
READERS = ("generate", "measure")


class Dropping:
    """Drops what can be dropped of the points of a plan; does nothing where the grid does not ask for it."""

    def __init__(self, work: Work) -> None:
        self.work, self.freed, self.dropped = work, 0, 0
        self._points: dict[Point, PointPlan] = {}
        self._of: dict[Hashable, Point] = {}  # by the marks of the steps that score a point's checkpoints
        self._readers: dict[Hashable, list[Step]] = {}  # by the marks of exports: the steps that read their weights
        if not work.plan.points or not work.plan.grid.runtime.drop_exports:
            return
        self._points = {planned.point: planned for planned in work.plan.points}
        for score in work.plan.scores:
            if not isinstance(score.subject, Point):
                continue
            for step in steps_of(score):
                self._of[step.mark] = score.subject
                if export := weights_read_by(step):
                    self._readers.setdefault(export.mark, []).append(step)

    def all(self) -> None:
        """Drop what can be dropped of all points."""
        for planned in self._points.values():
            self._drop(planned)

    def after(self, step: Step) -> None:
        """Drop what can be dropped now that a step has ended."""
        if point := self._of.get(step.mark):
            self._drop(self._points[point])

    def tell(self) -> None:
        """Say what was dropped."""
        if self.dropped:
            freed = f"{self.freed / 1e9:,.1f} GB (runtime.drop_exports)"
            self.work.progress.say(f"dropped the weights of {self.dropped} scored checkpoints, {freed}")

    def _drop(self, planned: PointPlan) -> None:
        work, chosen = self.work, self.work.choices.of(planned.point)
        if chosen is None:
            return
        for position, export in planned.exports.items():
            made = work.store.get(export.key)
            if made is None or position == chosen:
                continue
            names = [name for name in _weights(made) if (made.path / name).is_file()]
            readers = [step for step in self._readers.get(export.mark, []) if work.choices.wants(step)]
            if not names or not all(work.store.get(step.key) for step in readers) or self._is_read(export.key):
                continue
            self.freed += made.drop(names, WHY)
            self.dropped += 1

    def _is_read(self, export: Key) -> bool:
        """Whether somebody else, such as another grid's driver, is at work on a step that reads the export."""
        root, own = self.work.store.root, self.work.locks.owner
        if {path.name for path in (root / DRIVERS).glob("*")} <= {own}:
            return False  # without a look at thousands of folders
        folders = [folder for kind in READERS for folder in io.list_folders(root / kind)]
        return bool(working(folder for folder in folders if not (folder / DONE).is_file() and _reads(folder, export)))


def _reads(folder: Path, export: Key) -> bool:
    record = io.read_json(folder / RECORD)
    return isinstance(record, dict) and export.id in record.get("inputs", {}).values()


def _weights(export: Artifact) -> Iterable[str]:
    return sorted(
        {path.name for name in export.done["files"] for path in [export.path / name] if any(map(path.match, WEIGHTS))}
    )
