"""The metric that asks the answering model, through the stages without Ray: its model, what is told, and its record."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from kdray.artifacts.scores import read_rows, read_scores
from kdray.cli.progress import Terminal
from kdray.orchestration.resources import Node, Resources
from kdray.orchestration.work import Work
from kdray.plan import make_plan
from kdray.scorer import score as score_all
from kdray.spec import load_grid
from kdray.stages.generate import generate
from kdray.stages.measure import measure
from kdray.store import Locks, Outer, Store
from tests.orchestration.inline import start_inline
from tests.tiny import write_grid


@pytest.mark.slow
def test_the_student_is_asked_about_its_own_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdray.orchestration.crew.Crew.start", start_inline)
    texts = [f"{name} is in Rome . Ben lives in Oslo now . Cleo is in Lima ." for name in ("Ada", "Eve", "Gus")]
    rows = [{"document": text, "summary": "In Rome"} for text in [*texts, None]]
    (tmp_path / "xsum.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = f"{{name: xsum, source: 'file:{tmp_path}/xsum.jsonl', max_new_tokens: 4}}"
    score = f"{{tasks: [{task}], metrics: [{{name: selfcite, window: 60}}], batch: 2}}"
    grid = load_grid(write_grid(tmp_path, teacher="null", axes="{lr: [1.0e-3], batch: [4], alpha: [0]}", score=score))
    store = Store(grid.runtime.store)
    plan = make_plan(grid, Outer(store.root))
    student = plan.models["student"]
    attempt = store.begin(student.key, student.payload or {})
    shutil.copytree(tmp_path / "student", attempt.path, dirs_exist_ok=True)
    attempt.seal()
    output = io.StringIO()
    with Locks() as locks, Terminal(Console(file=output, width=400)) as progress:
        work = Work(plan, store, Outer(store.root), locks, progress, Resources((Node(1, 0),), workers=1))
        scores = [score for score in plan.scores if score.subject == "student"]
        stages = (
            generate([score.generate for score in scores if score.generate], work),
            measure([s.measure for s in scores], work),
        )
        score_all(list(stages), work)
    assert not work.failed
    [step] = [score.measure for score in scores if score.measure.slug.endswith("-selfcite")]
    made = store.get(step.key)
    assert made
    assert made.done["files"].keys() == {"scores.json", "examples.parquet", "details.json"}
    counts, measured = made.facts["counts"], read_scores(made.path)
    assert (measured["selfcite"].n, measured["failed"].value) == (3 - counts["without_answer"], 25)
    found = read_rows(made.path, ["selfcite", "sequences", "sentences_cut"]).to_pylist()
    assert counts["sequences"] == sum(row["sequences"] or 0 for row in found) > 0
    assert counts["sentences_cut"] == sum(row["sentences_cut"] or 0 for row in found) > 0
    told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count)
    assert f"{step.slug}: {told}\n" in output.getvalue()
    assert f"{counts['sequences']} sequences" in told
