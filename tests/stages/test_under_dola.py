"""Multiple choice in a grid under DoLa: scores of their own beside those by likelihood."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdray.report.frames import of_store
from kdray.report.results import collect
from kdray.report.write import write_report
from tests.here import run_here
from tests.score.test_shots import arc, question
from tests.tiny import PLACES, write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly]


@pytest.mark.usefixtures("one_ray")
def test_choices_by_likelihood_and_by_contrast(tmp_path: Path) -> None:
    rows = [arc(question(i), i % 4) for i in range(6)]
    (tmp_path / "arc.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    truths = [
        {
            "Question": f"Where is {p}?",
            "Best Answer": p,
            "Correct Answers": f"{p}; Here",
            "Incorrect Answers": "Rome; No",
        }
        for p in PLACES
    ]
    (tmp_path / "tqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in truths))
    tasks = (
        f"[{{name: arc_easy, source: 'file:{tmp_path}/arc.jsonl'}}, {{name: truthfulqa_mc, source:"
        f" 'file:{tmp_path}/tqa.jsonl'}}]"
    )
    path = write_grid(
        tmp_path,
        teacher=f"{{model: 'file:{tmp_path}/teacher'}}",
        train="{steps: 2}",
        axes="{lr: [3.0e-3], batch: [4], alpha: [0]}",
        score=(
            f"{{tasks: {tasks}, likelihood: shared_prefix, choices: [greedy, {{name: dola, layers: [1]}}], references:"
            " [student]}"
        ),
    )
    plan, store, failed = run_here(path)
    assert not failed
    results = collect(plan, store)
    for subject in ("student", plan.points[0].point):
        final = results.final(subject)  # pyright: ignore
        assert final is not None
        for name in ("arc_e", "arc_e_ece", "tqa_mc1", "tqa_mc2", "tqa_mc3"):
            plain, contrasted = final.scores[name], final.scores[f"{name}.dola-layers-1"]  # pyright: ignore
            assert plain.n == contrasted.n == len(rows)
        assert final.scores["tqa_mc2"] != final.scores["tqa_mc2.dola-layers-1"]  # pyright: ignore
        assert "dola" not in final.measured["arc_easy"].key.slug  # how sure a model is, is told of its likelihoods
    assert {found.decoding for found in of_store(store)} == {"", "dola-layers-1"}
    assert "tqa_mc2.dola-layers-1" in (write_report(results, tmp_path / "report") / "report.md").read_text()
