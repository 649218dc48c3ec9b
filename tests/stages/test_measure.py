"""Answers and benchmarks through Ray Data: one load of weights a model, and the same of both after kills and damage."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from kdray.artifacts.answers import read_answers
from kdray.artifacts.parts import parts
from kdray.artifacts.scores import ROWS, SCORES
from kdray.plan import make_plan
from kdray.spec import load_grid
from kdray.spec.errors import InputError
from kdray.store import Locks, Outer, Store
from tests.tiny import write_grid

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def write_questions(folder: Path) -> None:
    names = ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal"]
    arc, book = [], []
    for i, name in enumerate(names):
        choices = {"text": ["in Rome", "in Oslo " * (400 if i == 5 else 1), "Lima", "Paris"], "label": list("ABCD")}
        arc.append(
            {"id": str(i), "question": f"Where does {name} live?", "choices": choices, "answerKey": "ABCD"[i % 4]}
        )
        book.append(
            {
                "id": str(i),
                "question_stem": f"{name} lives in",
                "choices": {**choices, "text": list("wxyz")},
                "answerKey": "B",
            }
        )
    arc.append(arc[0] | {"answerKey": ""})
    shown = [book[0] | {"question_stem": "Ida lives in"}]
    for file, rows in (
        ("arc.jsonl", arc),
        ("book.jsonl", book),
        ("shown.jsonl", shown),
        ("broken.jsonl", [{"question": "?"}]),
    ):
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Answers, scores and details: undisturbed, after a killed actor, after a run that ended with damaged parts; what
    was said; facts.
    """
    from kdray import scorer
    from kdray.cli.progress import Terminal
    from kdray.orchestration.measurer import Measurer
    from kdray.orchestration.resources import Resources
    from kdray.orchestration.session import ray_session
    from kdray.orchestration.work import Work
    from kdray.stages import generate as answering
    from kdray.stages.measure import measure
    from kdray.stages.model import model

    here = tmp_path_factory.mktemp("measure")
    write_questions(here)
    tasks = f"{{name: arc_easy, source: 'file:{here}/arc.jsonl'}}, "
    tasks += (
        f"{{name: 'lm_eval:openbookqa', source: 'file:{here}/book.jsonl', shots: 1, shots_source:"
        f" 'file:{here}/shown.jsonl'}}"
    )
    tasks += f", {{name: 'lm_eval:sciq', source: 'file:{here}/broken.jsonl'}}"
    texts = [
        {"document": f"{name} is in Rome " * (i + 1), "summary": f"{name} lives in Rome"}
        for i, name in enumerate("ABCDEFGH")
    ]
    (here / "xsum.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    tasks += f", {{name: xsum, source: 'file:{here}/xsum.jsonl', max_new_tokens: 6}}"
    path = write_grid(
        here,
        teacher=f"{{model: 'file:{here}/teacher'}}",
        axes="{lr: [3.0e-3], batch: [4], alpha: [0]}",
        score=f"{{tasks: [{tasks}], batch: 3}}",
    )
    grid = load_grid(path)
    store = Store(grid.runtime.store)
    outer, output, found = Outer(store.root), io.StringIO(), {}
    plan = make_plan(grid, outer)
    scored = [score for score in plan.scores if isinstance(score.subject, str)]
    steps = [score.measure for score in scored if not score.generate]
    asked = [score.generate for score in scored if score.generate]
    killed, answerer_killed = here / "killed", here / "answerer killed"

    class MortalGenerator(answering.Generator):
        def __call__(self, item):
            if item.index == 1 and not answerer_killed.exists():
                answerer_killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            super().__call__(item)

    def answers():
        return {step.slug: read_answers(store.get(step.key).path) for step in asked}

    class Mortal(Measurer):
        def answer(self, item):
            if item.index == 4 and not killed.exists():
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            super().answer(item)

    class MortalScorer(scorer.Scorer):
        def __init__(self, loads):
            super().__init__(loads)
            self.generate, self.measure = MortalGenerator(self.generate.load), Mortal(self.measure.load)

    def score(stage, steps, work):
        score_all(stage(steps, work), work)

    def score_all(stage, work):
        scorer.score([stage], work)

    def scores():
        done = [step for step in steps if store.get(step.key)]
        assert len(done) == 4
        return {
            step.key.slug: {name: (store.get(step.key).path / name).read_bytes() for name in (SCORES, ROWS)}
            for step in done
        }

    def again(kind="measure"):
        shutil.rmtree(store.root / kind)
        return Work(plan, store, outer, locks, progress, one)

    with (
        ray_session(grid.runtime) as found_here,
        Locks() as locks,
        Terminal(Console(file=output, width=300)) as progress,
    ):
        one, resources = (
            Resources((replace(found_here.nodes[0], cpus=cpus, gpus=0),), workers=1) for cpus in (1, 2)
        )  # actors
        first = Work(plan, store, outer, locks, progress, resources)
        model(list(plan.models.values()), first)
        score(answering.generate, asked, first)
        found["answers"] = {"plain": answers()}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scorer, "Scorer", MortalScorer)
            score(answering.generate, asked, again("generate"))
        assert answerer_killed.exists()
        found["answers"]["killed"] = answers()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(answering, "measured_cost", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                score(answering.generate, asked, again("generate"))
        made = parts(store.folder(asked[0].key) / "attempt-001")
        made[1].unlink()
        made[2].write_bytes(b"damaged")
        score(answering.generate, asked, Work(plan, store, outer, locks, progress, one))
        found["answers"]["resumed"] = answers()
        output.truncate(0)
        stage = measure(steps, first)
        with pytest.raises(InputError, match=r"sciq\.source: none of 1 rows can be asked"):
            stage.look()  # what a run asks before it trains; found later, it fails alone
        score_all(stage, first)
        found["plain"], found["said"], found["failed"] = scores(), output.getvalue(), dict(first.failed)
        found["facts"] = [store.get(step.key).facts for step in steps if store.get(step.key)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scorer, "Scorer", MortalScorer)
            score(measure, steps, again())
        assert killed.exists()
        found["killed"] = scores()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("kdray.stages.measure.read_details", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                score(measure, steps, again())
        left = parts(store.folder(steps[0].key) / "attempt-001")
        left[1].unlink()
        left[2].write_bytes(b"damaged")
        score(measure, steps, Work(plan, store, outer, locks, progress, one))
        found["kept"], found["resumed"] = len(left), scores()
    return found


def test_weights_are_loaded_once_a_model_whatever_the_number_of_tasks(measured):
    """Two, and at the most once more by an actor that helps another in the end: each goes on with the model it has."""
    first = re.search(r"weights loaded (\d+) times", measured["said"])
    assert first
    assert int(first[1]) in (2, 3)


@pytest.mark.parametrize("how", ["killed", "resumed"])
def test_numbers_are_bitwise_the_same(measured, how):
    assert measured["kept"] > 3
    assert measured[how] == measured["plain"]


@pytest.mark.parametrize("how", ["killed", "resumed"])
def test_answers_are_the_same(measured, how):
    plain = measured["answers"]["plain"]
    assert [len(rows) for rows in plain.values()] == [8, 8]
    assert any(row["output_ids"] for rows in plain.values() for row in rows)
    assert measured["answers"][how] == plain


def test_a_question_that_cannot_be_answered_is_told_and_counted(measured):
    assert [facts["failed"] for facts in measured["facts"]] == [1, 1, 0, 0]
    assert "1 questions could not be scored" in measured["said"]
    assert [facts["unlabelled"] for facts in measured["facts"]] == [1, 1, 0, 0]
    assert "1 rows without a right answer that can be asked are left out; details.json names them" in measured["said"]
    kept = next(files for slug, files in measured["plain"].items() if "arc_easy" in slug)
    rows = pq.read_table(io.BytesIO(kept[ROWS])).to_pylist()
    assert [row["example"] for row in rows if row["error"]] == [5]
    scores = json.loads(kept[SCORES])
    assert (scores["acc"]["n"], scores["acc_norm"]["n"], scores["brier"]["n"]) == (7, 7, 7)


def test_a_benchmark_that_cannot_be_built_fails_alone(measured):
    assert len(measured["failed"]) == 2
    assert all(
        "sciq.source: none of 1 rows can be asked (UndefinedError" in reason for reason in measured["failed"].values()
    )
