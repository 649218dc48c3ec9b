"""An aligned point without Ray: the answers that it learns from, its training as a worker does it, and its scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from kdray.artifacts.answers import read_answers
from kdray.artifacts.curve import read_attempt
from kdray.artifacts.notes import ended_early
from kdray.artifacts.scores import read_scores
from kdray.cli.progress import Terminal
from kdray.models.load import load_tokenizer
from kdray.orchestration import worker
from kdray.orchestration.resources import Node, Resources
from kdray.orchestration.trainer import make_job
from kdray.orchestration.work import Work
from kdray.plan import Plan, Step, make_plan
from kdray.scorer import score
from kdray.spec import load_grid
from kdray.stages.generate import generate
from kdray.stages.measure import measure
from kdray.stages.train import _exports
from kdray.store import Locks, Outer, Store
from tests.orchestration.inline import start_inline
from tests.tiny import NAMES, PLACES, write_grid, write_rows

WRITTEN = ["[2-2]</cite>", "[1-1]</cite>", "[1-2]</cite>", "Ada"]  # the plain citation, and three candidates


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Of one point and its aligned one, in a store that has the first's checkpoints."""
    monkeypatch.setattr("kdray.orchestration.crew.Crew.start", start_inline)
    monkeypatch.setattr("kdray.cite.best.drawn", lambda *_: WRITTEN)
    context = SimpleNamespace(
        get_world_rank=lambda: 0, get_world_size=lambda: 1, get_experiment_name=lambda: "attempt-001"
    )
    monkeypatch.setattr(worker.ray.train, "get_context", lambda: context)
    monkeypatch.setattr(worker.ray.train.torch, "get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(worker, "_report", lambda *_: None)
    monkeypatch.setattr(worker, "_taken_away", lambda: False)
    path = write_grid(
        tmp_path,
        teacher="null",
        axes="{lr: [1.0e-3], batch: [4], alpha: [0], aligned: [false, true]}",
        align="{lr: 1.0e-3, steps: 2, batch: 2, answers: 8, max_new_tokens: 16, candidates: 3}",
        score="{tasks: [{name: heldout_answers, limit: 2, max_new_tokens: 8}], decoding: [selfcite],"
        " metrics: [citations], batch: 4}",
    )
    grid = load_grid(path)
    made = make_plan(grid, Outer(Store(grid.runtime.store).root))
    assert made.prepare
    tokenizer: Any = load_tokenizer(tmp_path / "student")
    source, rows = tmp_path / "sentences.jsonl", []
    for name in NAMES * 3:
        text = " ".join(f"{name} is in {place} ." for place in PLACES[:3])
        rows.append({"instruction": f"Where is {name}?", "context": text, "response": f"{name} lives in Rome ."})
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in (made.models["student"], made.prepare, *made.points[0].exports.values()):
        attempt = Store(grid.runtime.store).begin(step.key, step.payload or {})
        if step is made.prepare:
            write_rows(attempt.path, tokenizer, source=source)
        else:
            shutil.copytree(tmp_path / "student", attempt.path, dirs_exist_ok=True)
        attempt.seal()
    return made


@pytest.mark.slow
def test_an_aligned_point_learns_from_the_answers_of_its_plain_one_and_is_scored(plan: Plan) -> None:
    store, aligned = Store(plan.grid.runtime.store), plan.points[1]
    pairs = aligned.train.inputs.pairs
    assert pairs
    with Locks() as locks, Terminal(Console(quiet=True)) as progress:
        work = Work(plan, store, Outer(store.root), locks, progress, Resources((Node(1, 0),), workers=1))
        score([generate([pairs], work)], work)
        assert not work.failed
        answers = read_answers(work.folder(pairs))
        assert len(answers) == 8
        assert {each["plain"] for row in answers for each in row["cited"]["statements"]} == {"[2-2]"}
        attempt = store.begin(aligned.train.key, aligned.train.payload or {})
        job = make_job(aligned.train, attempt, work, _exports(aligned, set()))
        assert worker.train_job(job) is False
        assert ended_early(attempt.path) is None
        assert [(entry["step"], entry["examples"]) for entry in read_attempt(attempt.path)] == [(1, 2), (2, 4)]
        exported = store.get(aligned.exports[8.0].key)
        assert exported
        assert (exported.facts["step"], exported.facts["examples"]) == (2, 4)
        attempt.seal()
        scores = [each for each in plan.scores if each.subject == aligned.point]
        steps: list[Step[Any]] = [each.generate for each in scores if each.generate]
        score([generate(steps, work), measure([each.measure for each in scores], work)], work)
        assert not work.failed
    for each in scores:
        assert each.position == 8.0
        assert {"cite_best", "cite_plain", "rougeL"} <= read_scores(work.folder(each.measure)).keys()
