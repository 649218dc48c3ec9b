"""A real grid with points that train on from others on their own citations, to their scores."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import kdray
from kdray.artifacts.answers import read_answers
from kdray.artifacts.curve import read_curve
from kdray.artifacts.scores import read_scores
from tests.here import run_here
from tests.tiny import NAMES, PLACES, write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly, pytest.mark.usefixtures("one_ray")]


def write_rows(path: Path) -> None:
    """Responses that cite, at random: so a tiny model writes citations that can be read."""
    dice, rows = random.Random(0), []
    for _ in range(40):
        names, places = dice.sample(NAMES, 3), dice.sample(PLACES, 3)
        cites = [f"<cite>[{number}-{number}]</cite></statement>" for number in dice.choices("123", k=4)]
        context = " ".join(f"{name} is in {place} ." for name, place in zip(names, places, strict=True))
        name, response = names[0], f"{names[0]} lives in {places[0]} . " + " ".join(cites)
        rows.append({"instruction": f"Where is {name}?", "context": context, "response": response})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_points_learn_from_the_citations_of_others_and_are_scored(tmp_path: Path) -> None:
    path = write_grid(
        tmp_path,
        teacher="null",
        axes="{lr: [1.0e-2], batch: [8], alpha: [0], aligned: [false, true]}",
        align="{lr: 1.0e-3, steps: 3, batch: 4, answers: 12, max_new_tokens: 12, candidates: 4}",
        train="{steps: 60, keep: [30]}",
        score="{tasks: [{name: heldout_answers, limit: 4, max_new_tokens: 12}], decoding: [selfcite],"
        " metrics: [citations], references: [], batch: 4}",
        runtime=f"{{store: '{tmp_path}/store'}}",
    )
    write_rows(tmp_path / "rows.jsonl")
    plan, store, failed = run_here(path)
    assert not failed
    plain, aligned = plan.points
    assert aligned.train.inputs.pairs
    answered = store.get(aligned.train.inputs.pairs.key)
    assert answered
    cited = [row["cited"]["statements"] for row in read_answers(answered.path)]
    assert sum(each["best_reward"] > each["plain_reward"] for statements in cited for each in statements) > 3
    made = store.get(aligned.train.key)
    assert made
    curve = read_curve(made)
    assert [entry["step"] for entry in curve] == [1, 2, 3]
    assert all(entry["loss"] > 0 and "margin" in entry for entry in curve)
    before, after = (store.get(each.exports[60.0].key) for each in (plain, aligned))
    assert before
    assert after
    assert (before.path / "model.safetensors").read_bytes() != (after.path / "model.safetensors").read_bytes()
    scores = [score for score in plan.scores if score.subject == aligned.point]
    assert [score.position for score in scores] == [60.0]
    for score in scores:
        found = store.get(score.measure.key)
        assert found
        assert "cite_plain" in read_scores(found.path)
    frame = kdray.results(str(path)).frame()
    assert set(frame[frame.aligned.fillna(False)].arm) == {"SFT, aligned"}
    of_store = kdray.results(tmp_path / "store").frame()
    assert set(of_store[of_store.aligned.fillna(False)].arm) == {"SFT, aligned"}
    assert not run_here(path)[2]
