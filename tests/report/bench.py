"""A whole grid of made-up but plausible numbers, written by the stages' own writers, for pages that have everything on
them.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np

from kdray.artifacts.answers import write_answers
from kdray.artifacts.curve import curve_file, write_curve
from kdray.artifacts.notes import note_end
from kdray.artifacts.scores import DOUBTED, SPANS, write_scores
from kdray.data.estimates import mean
from kdray.plan import Plan, ScoreStep, Step, make_plan
from kdray.report.results import Results, collect
from kdray.spec import load_grid
from kdray.spec.points import Point
from kdray.store import Outer, Store
from tests.conftest import TinyGrid

EVIL = "<script>alert('kdray')</script>"
CHANGES: dict[str, Any] = {
    "name": "rich",
    "question": "Does a student that learns from soft labels summarise more faithfully?",
    "train": {"steps": 40, "keep": [20]},
    "axes": {"lr": [1e-4, 3e-4], "batch": [4], "alpha": [0, 0.1, 1], "seed": [0, 1, 2]},
    "score.tasks": [
        {"name": "xsum", "source": "file:HERE/xsum.jsonl"},
        {"name": "arc_easy", "source": "file:HERE/arc.jsonl"},
        "heldout_loss",
    ],
    "score.metrics": [{"name": "lettucedetect", "model": "file:HERE/student"}],
    "report": {"primary": "xsum/lettuce", "cases": 2},
}
NAMES = ["Ada", "Boris", "Clara", "Dmitri", "Elena", "Farid", "Grace", "Hugo"]
PLACES = ["Leeds", "Porto", "Lagos", "Oslo", "Quito", "Turin", "Perth", "Sendai"]


class Bench:
    """A grid in a folder and everything that its stages would have left, but for what `leave_out` names."""

    def __init__(self, folder: Path, changes: dict[str, Any] | None = None, items: int = 120) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.grid, self.items = TinyGrid(folder), items
        self.grid.rows("arc.jsonl", [{"question": "?"}])
        self.path = self.grid(CHANGES | (changes or {}))
        self.store = Store(load_grid(self.path).runtime.store)

    @property
    def plan(self) -> Plan:
        return make_plan(load_grid(self.path), Outer(self.store.root))

    @property
    def results(self) -> Results:
        return collect(self.plan, self.store)

    def finish(self, diverged: tuple[Point, ...] = (), unscored: tuple[Point, ...] = ()) -> Bench:
        """Make all artifacts; points that diverged have none behind their training."""
        plan, ended = self.plan, set(diverged)
        for step in plan.steps():
            if step.kind in ("model", "prepare", "teach", "soften"):
                self._seal(step)
        for planned in plan.points:
            self._train(planned.train, planned.point, planned.point in ended)
            for position, export in planned.exports.items() if planned.point not in ended else ():
                self._seal(export, examples=int(position) * planned.point.batch)
        for score in plan.scores:
            if score.subject not in ended and score.subject not in unscored:
                self._answer(score)
                self._measure(score)
        return self

    def _seal(self, step: Step, **facts: Any) -> None:
        if self.store.get(step.key) is None:
            self.store.begin(step.key, step.payload or {}).seal(None, **facts)

    def _train(self, step: Step, point: Point, diverged: bool) -> None:
        attempt, dice = self.store.begin(step.key, step.payload or {}), _dice(point.slug)
        lines = []
        for i in range(1, 13 if diverged else 41):
            ce = 2.2 + 1.6 * math.exp(-i / 9) + dice.normal(0, 0.08) - 0.03 * math.log10(1 + 50 * point.alpha)
            line = {
                "step": i,
                "examples": i * point.batch,
                "tokens": 100 + i % 7,
                "loss": ce * (1 + point.alpha),
                "ce": ce,
            }
            lines.append(line | ({"heldout_ce": ce + 0.12, "heldout_kl": 0.6} if i % 20 == 0 else {}))
        write_curve(attempt.path, lines)
        if diverged:
            note_end(attempt.path, f"loss nan, gradient norm inf at step 13 with lr {point.lr:g} {EVIL}")
            return
        attempt.seal(
            [curve_file(attempt.path)],
            device="cpu",
            engine={"name": "ddp", "params": {}},
            workers=1,
            threads=1,
            torch="2.13",
        )

    def _answer(self, score: ScoreStep) -> None:
        step = score.generate
        if step is None or self.store.get(step.key):
            return
        attempt = self.store.begin(step.key, step.payload or {})
        write_answers(attempt.path, 0, [_answered(step.slug, i) for i in range(self.items)], 12.5)
        attempt.seal(None, answer_tokens=25 * self.items, answer_seconds=12.5)

    def _measure(self, score: ScoreStep) -> None:
        step = score.measure
        if self.store.get(step.key):
            return
        attempt, rows = self.store.begin(step.key, step.payload or {}), self._rows(score)
        names = [name for name in rows[0] if name not in ("example", SPANS, DOUBTED, "empty", "error")]
        factor = 100.0 if score.task.name == "arc_easy" else 1.0
        write_scores(attempt.path, {name: mean([factor * row[name] for row in rows]) for name in names}, rows)
        attempt.seal(None)

    def _rows(self, score: ScoreStep) -> list[dict[str, Any]]:
        dice, skill = _dice(score.measure.slug), _skill(score)
        if score.task.name == "heldout_loss":
            return [
                {"example": i, "ce": float(dice.gamma(40, 0.06)) - 0.3 * skill, "kl": 0.9 - 0.5 * skill}
                for i in range(self.items)
            ]
        if score.task.name == "arc_easy":
            right = dice.random((2, self.items)) < 0.42 + 0.12 * skill
            return [
                {"example": i, "acc": float(right[0, i]), "acc_norm": float(right[1, i])} for i in range(self.items)
            ]
        clean = dice.random(self.items) < 0.62 + 0.25 * skill
        if "lettuce" in score.measure.slug:
            return [
                {
                    "example": i,
                    "empty": False,
                    "error": None,
                    "lettuce": 100.0 * bool(ok),
                    "lettuce_tok": 100.0 if ok else 82.0,
                }
                | {SPANS: [] if ok else [[0, 12]], DOUBTED: [[4, 20]]}
                for i, ok in enumerate(clean)
            ]
        return [
            {"example": i, "empty": False, "error": None, "rougeL": float(dice.beta(3, 10)) * 100 * (0.9 + 0.3 * skill)}
            for i in range(self.items)
        ]


def _skill(score: ScoreStep) -> float:
    """Between 0 and 1: what a model at this checkpoint is good for."""
    if not isinstance(score.subject, Point):
        return 0.1 if score.subject == "student" else 0.9
    point, done = score.subject, min((score.position or 0) / 40, 1)
    gain = {0: 0.0, 0.01: 0.05, 0.1: 0.15, 1: 0.26, 10: 0.2}.get(point.alpha, 0.1)
    return 0.15 + done * (0.2 + gain + 0.05 * (point.lr > 2e-4) + 0.02 * (point.batch > 4))


def _answered(slug: str, item: int) -> dict[str, Any]:
    dice = _dice(f"{slug}-{item}")
    who, where = NAMES[item % 8], PLACES[item * 3 % 8]
    said = PLACES[int(dice.integers(8))] if dice.random() < 0.4 else where
    source = (
        f"{who} Marsh opened a library in {where} on Monday. " * 3
        + f"About {item + 20} people came, the council said. {EVIL}"
    )
    answer = f"{who} Marsh opened a library in {said} & {item + 20} people came. {EVIL if item % 5 == 0 else ''}"
    return {
        "example": item,
        "input_ids": [1, 2],
        "question": "Summarise the article in one sentence.",
        "source": source,
        "references": [f"{who} Marsh has opened a new library in {where}."],
        "wrong": [],
        "output_ids": [3, 4],
        "answer": answer.strip(),
        "error": None,
        "thought_ids": [],
        "thought": None,
        "thought_end": None,
    }


def _dice(text: str) -> np.random.Generator:
    return np.random.default_rng(int(hashlib.sha256(text.encode()).hexdigest()[:12], 16))
