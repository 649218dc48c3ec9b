"""Stores made by hand, as the stages would leave them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from kdray.artifacts.answers import write_answers
from kdray.artifacts.curve import curve_file, write_curve
from kdray.artifacts.scores import write_scores
from kdray.plan import Plan, Step, make_plan
from kdray.plan.steps import PointPlan, Subject
from kdray.spec.load import parse_grid
from kdray.spec.points import Point
from kdray.store import Attempt, Outer, Store
from tests.conftest import TinyGrid

ANSWER = {"example": 0, "input_ids": [1], "question": "?", "source": "It rained.", "references": ["Rain."], "wrong": []}
ANSWER |= {"output_ids": [2], "answer": "Rain.", "error": None, "thought_ids": []}
END = 4.0  # steps of training, and so the last checkpoint's position
CHANGES = {
    "name": "bench",
    "axes": {"lr": [3e-4], "batch": [2], "alpha": [0, 0.1]},
    "score.tasks": ["heldout_loss", {"name": "heldout_answers", "limit": 8}],
    "report": {"primary": "heldout_answers/rougeL"},
}


class Bench:
    """A grid of two points, alpha 0 and 0.1, in a temporary folder, and what its stages have written so far."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.grid = folder, TinyGrid(folder)
        self.changes: dict[str, Any] = dict(CHANGES)
        self.store = Store(folder / "store")

    @property
    def plan(self) -> Plan:
        return make_plan(parse_grid(self.grid.text(self.changes)), Outer(self.store.root))

    @property
    def database(self) -> Path:
        return self.store.root / "mlflow.db"

    def point(self, alpha: float) -> PointPlan:
        return next(point for point in self.plan.points if point.point.alpha == alpha)

    def begin(self, alpha: float, steps: int = 4, shift: float = 0.0) -> Attempt:
        """A training attempt that has come so far; `shift` moves its losses."""
        train = self.point(alpha).train
        attempt = self.store.begin(train.key, train.payload or {})
        begin_curve(attempt, self.point(alpha).point, steps, shift)
        return attempt

    def train(self, alpha: float, shift: float = 0.0) -> None:
        """A finished point with its exported checkpoints."""
        point = self.point(alpha)
        for position, export in point.exports.items():
            self.seal(export, examples=int(position) * point.point.batch)
        attempt = self.begin(alpha, shift=shift)
        attempt.seal([curve_file(attempt.path)], workers=1, threads=1, gpu=False)

    def measure(self, subject: Subject, position: float | None, value: float, task: str = "") -> None:
        """Scores of a checkpoint on all tasks, or on one: `value` for the first metric, one more for the second."""
        for score in self.plan.scores:
            if (score.subject, score.position) == (subject, position) and task in score.task.name:
                if score.generate:
                    self.seal(score.generate)
                metrics = ("ce", "kl") if score.task.name == "heldout_loss" else ("rougeL", "empty")
                self.seal(
                    score.measure,
                    {metric: {"value": value + i, "stderr": 0.1, "n": 8} for i, metric in enumerate(metrics)},
                )

    def finish(self) -> None:
        """Everything. References score 5, points 9 half-way and 10 + alpha at the end."""
        for role, model in self.plan.models.items():
            self.seal(model)
            self.measure(role, None, 5.0)
        for planned in self.plan.points:
            if not self.store.get(planned.train.key):
                self.train(planned.point.alpha)
            self.measure(planned.point, 2.0, 9.0)
            self.measure(planned.point, END, 10 + planned.point.alpha)

    def seal(self, step: Step, scores: dict[str, Any] | None = None, **facts: Any) -> None:
        if self.store.get(step.key) is None:
            attempt = self.store.begin(step.key, step.payload or {})
            if scores is not None:
                write_scores(attempt.path, scores, [{"example": i} for i in range(8)])
            elif step.kind == "generate":
                write_answers(attempt.path, 0, [ANSWER], 1.0)
            attempt.seal(**facts)

    def sql(self, query: str, *values: object) -> list[Sequence[Any]]:
        """Rows straight from MLflow's file."""
        with closing(sqlite3.connect(self.database)) as connection:
            return connection.execute(query, values).fetchall()

    def rows(self) -> list[Sequence[Any]]:
        """All metric rows of runs that are not in the trash, sorted."""
        return self.sql(
            "SELECT t.value, m.key, m.step, m.value, m.timestamp - r.start_time FROM metrics m JOIN runs r USING"
            " (run_uuid) JOIN tags t USING (run_uuid) WHERE t.key = 'kdray.point' AND r.lifecycle_stage = 'active'"
            " ORDER BY 1, 2, 3"
        )

    def runs(self, stage: str = "active") -> dict[str, tuple[str, str, str]]:
        """By identity: the run's id, name and status."""
        found = self.sql(
            "SELECT t.value, run_uuid, name, status FROM runs JOIN tags t USING (run_uuid) "
            "WHERE t.key = 'kdray.point' AND lifecycle_stage = ?",
            stage,
        )
        assert len({row[0] for row in found}) == len(found), "two runs of one identity"
        return {row[0]: (row[1], row[2], row[3]) for row in found}

    def of(self, table: str, alpha: float) -> dict[str, str]:
        """Params, tags or latest metrics of a point's run."""
        run = self.runs()[str(self.point(alpha).train.id)][0]
        return {row[0]: row[1] for row in self.sql(f"SELECT key, value FROM {table} WHERE run_uuid = ?", run)}


def begin_curve(attempt: Attempt, point: Point, steps: int, shift: float = 0.0) -> None:
    """`steps` steps as rank 0 writes them, with held-out numbers at steps 2 and 4."""
    lines = []
    for step in range(1, steps + 1):
        line = {"loss": 4.0 - step + shift, "ce": 3.5 - step, "lr": point.lr / step, "grad_norm": 1.0, "tokens": 30}
        line |= {"soft": 3.0} if point.alpha else {}
        line |= {"step": step, "examples": step * point.batch}
        line |= {"heldout_ce": 5.0 - step, "heldout_kl": 0.5} if step % 2 == 0 else {}
        lines.append(line)
    write_curve(attempt.path, lines)
