"""A lens in a grid: trained once, then a factual rate of every student's kept answers; a new lens makes only that
again.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from kdray.artifacts.annotated import read_annotated
from kdray.artifacts.scores import read_factual
from kdray.lens.sources.jsonl import jsonl
from kdray.plan import Plan
from kdray.plan.inputs import RateInputs
from kdray.report.results import collect
from kdray.report.write import write_report
from kdray.spec import InputError
from tests.here import run_here
from tests.tiny import PLACES, write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def ids(plan: Plan, kind: str) -> set[str | None]:
    return {step.id for step in plan.steps() if step.kind == kind}


@pytest.mark.usefixtures("one_ray")
def test_factual_rates_from_kept_answers(tmp_path: Path) -> None:
    tests = [{"document": f"Ben is in {place} .", "summary": f"Ben lives in {place} ."} for place in PLACES[:3]]
    (tmp_path / "xsum.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tests))
    pairs = [(here, there) for here in PLACES for there in PLACES]
    labelled = [
        {
            "id": i,
            "document": f"Ada is in {here} .",
            "response": f"Ada is in {there} .",
            "spans": [[10, 10 + len(there)]] * (here != there),
        }
        for i, (here, there) in enumerate(pairs)
    ]
    good = "".join(json.dumps(row) + "\n" for row in labelled)
    path = write_grid(
        tmp_path,
        teacher=f"{{model: 'file:{tmp_path}/teacher'}}",
        train="{steps: 2}",
        axes="{lr: [3.0e-3], batch: [4], alpha: [0]}",
        score=f"{{tasks: [{{name: xsum, source: 'file:{tmp_path}/xsum.jsonl', max_new_tokens: 6}}], batch: 3}}",
        lens=f"{{annotations: jsonl, source: 'file:{tmp_path}/labelled.jsonl', window: 3}}",
    )
    (tmp_path / "labelled.jsonl").write_text(good + "{}\n")
    with pytest.raises(InputError, match=r"line \d+ of labelled\.jsonl has no"):
        run_here(path)
    assert not (tmp_path / "store" / "train").exists()  # said before anything is trained

    (tmp_path / "labelled.jsonl").write_text(good)
    plan, store, failed = run_here(path)
    assert not failed
    results = collect(plan, store)
    for checkpoint in results.checkpoints:
        # the teacher has another number of layers, for which this lens is not
        assert ("xsum_fr" in checkpoint.scores) == (checkpoint.subject != "teacher")
        if checkpoint.subject != "teacher":
            assert 0 <= checkpoint.scores["xsum_fr"].value <= 100
            assert checkpoint.scores["xsum_fr_auroc"].n > 0
    [rate] = [
        score.measure
        for score in plan.scores
        if isinstance(score.measure.inputs, RateInputs) and score.subject == "student"
    ]
    artifact = store.get(rate.key)
    assert artifact is not None
    facts = read_factual(artifact.path)
    assert facts["left_out"]["training_documents"] == 0
    assert facts["auroc_own"] == pytest.approx(results.final("student").scores["xsum_fr_auroc"].value)  # pyright: ignore

    # The same lens as one that is there already: the same rates, and no answer is generated again.
    [lens] = [step for step in plan.steps() if step.kind == "lens"]
    tree = yaml.safe_load(path.read_text())
    with_lens = {
        "trained": f"file:{store.get(lens.key).path}",
        "annotations": "jsonl",
        "source": f"file:{tmp_path}/labelled.jsonl",
    }  # pyright: ignore
    path.write_text(yaml.safe_dump(tree | {"lens": with_lens}))
    given, store, failed = run_here(path)
    assert not failed
    assert ids(given, "generate") == ids(plan, "generate")
    for subject in ("student", plan.points[0].point):
        before, after = (collect(one, store).final(subject).scores for one in (plan, given))  # pyright: ignore
        assert after["xsum_fr"] == before["xsum_fr"]
        assert after["xsum_fr_auroc"] == before["xsum_fr_auroc"]  # by the documents that did not train it
    text = (write_report(collect(given, store), tmp_path / "report") / "report.md").read_text()
    auroc = f"AUROC {facts['auroc_own']:.1f}"
    assert f"a lens that was trained before ({auroc} then): {auroc} on {len(pairs)} annotated responses." in text

    task = {"name": "train_answers", "limit": 20, "max_new_tokens": 8}
    metric = {"name": "support_standin", "model": f"file:{tmp_path}/teacher"}
    tree["lens"] = {"own": {"task": task, "metric": metric, "threshold": 0.0}, "window": 3}
    guided = {"name": "lookback_guided", "guide": "lens", "candidates": 2, "chunk": 3}
    tree["score"]["decoding"] = ["greedy", guided, {"name": "dola", "layers": [1]}]
    path.write_text(yaml.safe_dump(tree))
    again, store, failed = run_here(path)
    assert not failed
    [annotate] = [step for step in again.steps() if step.kind == "annotate"]
    decoded = {score.generate.id for score in again.scores if score.generate and score.decoding != "greedy"}
    assert ids(again, "generate") - ids(plan, "generate") - decoded == {annotate.inputs.outputs.id}
    assert ids(again, "lens").isdisjoint(ids(plan, "lens"))
    kept = {score.measure.id for score in plan.scores if not isinstance(score.measure.inputs, RateInputs)}
    assert kept < {score.measure.id for score in again.scores}
    annotated = store.get(annotate.key)
    assert annotated is not None
    rows = read_annotated(annotated.path, jsonl)
    assert 10 < len(rows) <= 20
    assert 0 < sum(bool(row.spans) for row in rows) < len(rows)
    results = collect(again, store)
    for subject in ("student", again.points[0].point):
        scores = results.final(subject).scores  # pyright: ignore
        assert {"xsum_fr", "xsum_fr.dola-layers-1", "xsum_fr.lookback_guided-guide-lens-candidates-2-chunk-3"} <= set(
            scores
        )
        assert all(score.n > 0 for name, score in scores.items() if name.startswith("xsum_fr"))
    text = (write_report(results, tmp_path / "report") / "report.md").read_text()
    assert f"lens of {len(rows)} of the untrained student's own answers" in text
    assert "The same lens chose the answers of lookback_guided-guide-lens-candidates-2-chunk-3" in text
