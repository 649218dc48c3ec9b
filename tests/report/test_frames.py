"""The tables that `kdray.results` gives, of scores that the stages' own writers wrote."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

import kdray
from kdray.artifacts.answers import write_answers
from kdray.artifacts.curve import write_curve
from kdray.artifacts.scores import ROWS, read_scores, score_files, write_scores
from kdray.data.estimates import mean
from kdray.plan import Plan, Step, make_plan
from kdray.plan.inputs import AnswersInputs, RateInputs
from kdray.report.frames import FRAME, ITEMS
from kdray.spec import InputError, load_grid
from kdray.store import Outer, Store, io
from tests.answers import measure_answers
from tests.conftest import ABSENT, TinyGrid

CHANGES: dict[str, Any] = {
    "axes": {"lr": [1e-3], "batch": [2], "alpha": [0, 1], "labels": ["gold", "teacher"]},
    "score.decoding": ["greedy", {"name": "dola", "layers": "high"}],
    "score.tasks": ["heldout_loss", {"name": "heldout_answers", "limit": 3}],
}
ANSWERS = ["the cat sat", "a dog", ""]


class Finished:
    """The tiny grid, as far as its stages have come: what `only` says, by default everything."""

    def __init__(self, grid: TinyGrid, changes: dict[str, Any], only: Callable[[Step], bool]) -> None:
        self.path = grid(changes)
        spec = load_grid(self.path)
        self.store = Store(spec.runtime.store)
        self.plan: Plan = make_plan(spec, Outer(self.store.root))
        for step in self.plan.steps():
            if only(step):
                self.make(step)

    def make(self, step: Step) -> None:
        attempt = self.store.begin(step.key, step.payload or {})
        if step.kind == "generate":
            rows = [
                {
                    "example": 10 + i,
                    "input_ids": [1],
                    "question": "?",
                    "source": "the cat",
                    "references": ["the cat sat down"],
                }
                | {
                    "wrong": [],
                    "output_ids": [2],
                    "thought_ids": [],
                    "answer": answer,
                    "error": None if i < 2 else "OSError: lost",
                }
                for i, answer in enumerate(ANSWERS)
            ]
            write_answers(attempt.path, 0, rows, 1.0)
        elif isinstance(step.inputs, AnswersInputs | RateInputs):
            outputs = self.store.get(step.inputs.outputs.key)
            assert outputs
            measure_answers(step, outputs.path, attempt)
            attempt.seal(score_files(attempt.path))
            return
        elif step.kind == "measure":
            losses = [{"example": i, "tokens": 4, "ce": 1.0 + i, "kl": 0.5} for i in range(2)]
            write_scores(attempt.path, {name: mean([row[name] for row in losses]) for name in ("ce", "kl")}, losses)
        elif step.kind == "train":
            write_curve(attempt.path, [{"step": 1, "examples": 2, "tokens": 4, "loss": 1.0, "ce": 1.0}])
        attempt.seal(**({"examples": int(step.params["at"]) * 2} if step.kind == "student" else {}))


@pytest.fixture
def finished(tiny_grid: TinyGrid) -> Callable[..., Finished]:
    return lambda changes=None, only=lambda _: True: Finished(tiny_grid, CHANGES | (changes or {}), only)


@pytest.mark.slow
def test_every_score_is_one_row_that_says_of_what_it_is(finished: Callable[..., Finished]) -> None:
    made = finished()
    frame = kdray.results(made.path).frame()
    assert list(frame.columns) == list(FRAME)
    models = 4 * 2 + 2  # two checkpoints of each point, the untrained student, the teacher
    assert len(frame[frame.metric == "ce"]) == len(frame[frame.metric == "kl"]) == models
    assert len(frame[frame.metric == "rougeL"]) == 2 * models
    assert not frame.duplicated(["model", "checkpoint", "task", "metric", "decoding"]).any()
    [row] = frame.query("arm == 'SeqKD + KD 1' and final and metric == 'rougeL' and decoding != 'greedy'").to_dict(
        "records"
    )
    label = "dola-layers-high"
    point = made.plan.points[-1].point
    stored = made.store.get(
        next(s for s in made.plan.scores if (s.subject, s.position, s.decoding) == (point, 4, label)).measure.key
    )
    assert stored
    score = vars(read_scores(stored.path)["rougeL"])
    assert row == {
        "model": "lr0.001-b2-a1-s0-teacher",
        "arm": "SeqKD + KD 1",
        "labels": "teacher",
        "teacher": "",
        "alpha": 1.0,
        "lr": 1e-3,
        "batch": 2,
        "seed": 0,
        "smoothing": 0.0,
        "rows": "all",
        "temperature": 1.0,
        "on_policy": 0.0,
        "aligned": False,
        "checkpoint": 4.0,
        "examples": 8,
        "final": True,
        "task": "heldout_answers",
        "decoding": label,
        "metric": "rougeL",
        "column": f"held_rougeL.{label}",
        **score,
    }
    assert (score["n"], score["value"] > 0, score["stderr"] > 0) == (2, True, True)


@pytest.mark.slow
def test_reference_models_have_names_and_no_axes(finished: Callable[..., Finished]) -> None:
    frame = kdray.results(finished().path).frame()
    references = frame[frame.alpha.isna()]
    assert set(references.model) == {"untrained student", "teacher"}
    assert references.final.all()
    assert (
        references[["labels", "teacher", "arm", "lr", "batch", "seed", "checkpoint", "examples"]].isna().all(axis=None)
    )
    points = frame[frame.alpha.notna()]
    assert {tuple(sorted(kept)) for kept in points.groupby("model").checkpoint.unique()} == {(2.0, 4.0)}
    assert (points.final == (points.checkpoint == 4)).all()


@pytest.mark.slow
def test_the_mean_of_the_items_is_the_score(finished: Callable[..., Finished]) -> None:
    scores = kdray.results(finished().path)
    items, frame = scores.items(), scores.frame()
    assert list(items.columns) == list(ITEMS)
    keys = ["model", "checkpoint", "task", "metric", "decoding"]
    means = items.groupby(keys, dropna=False).value.mean().rename("mean").reset_index()
    both = frame.merge(means, on=keys)
    assert set(both.metric) == set(frame.metric) - {"empty", "failed", "unfinished"}  # which no item has as a number
    assert both.value.to_numpy() == pytest.approx(both["mean"].to_numpy())
    some = items.query(
        "task == 'heldout_answers' and metric == 'rougeL' and model == 'teacher' and decoding == 'greedy'"
    )
    assert some.item.tolist() == ["10", "11", "12"]  # the example's own number
    assert some.value.isna().tolist() == [False, False, True]  # the one that could not be answered
    only = scores.items("heldout_loss")
    assert set(only.task) == {"heldout_loss"}
    assert len(only) == len(items[items.task == "heldout_loss"]) > 0


@pytest.mark.slow
def test_a_store_says_the_same_without_the_grid(finished: Callable[..., Finished]) -> None:
    made = finished()
    of_grid, of_store = kdray.results(made.path).frame(), kdray.results(made.store.root).frame()
    renamed = of_store.replace({"model": {"student": "untrained student", "teacher-lora": "teacher"}})
    keys = [
        "task",
        "decoding",
        "metric",
        "column",
        "alpha",
        "lr",
        "batch",
        "seed",
        "labels",
        "checkpoint",
        "examples",
        "value",
        "n",
    ]
    order = ["alpha", "labels", "checkpoint", "task", "decoding", "metric", "value"]
    pandas.testing.assert_frame_equal(
        *(each[keys].sort_values(order, ignore_index=True) for each in (of_grid, renamed))
    )
    assert set(renamed.model[renamed.alpha.isna()]) == {"untrained student", "teacher"}
    assert of_store.final.isna().all()
    taught = of_store[(of_store.alpha == 1) | (of_store.labels == "teacher")]
    assert set(taught.teacher) == {"teacher-lora"}
    assert set(of_store.teacher[(of_store.alpha == 0) & (of_store.labels == "gold")]) == {""}
    assert len(kdray.results(made.store.root).items()) == len(kdray.results(made.path).items())


@pytest.mark.slow
def test_a_store_knows_points_of_both_kinds_of_rows_and_of_ensembles(
    finished: Callable[..., Finished], tiny_grid: TinyGrid
) -> None:
    [tiny_grid.model(name) for name in ("big", "other")]
    teachers = {name: {"model": f"file:{tiny_grid.folder}/{name}"} for name in ("big", "other")}
    changes = {"teacher": ABSENT, "teachers": teachers, "ensembles": {"mix": {"big": 1, "other": 1}}}
    both = finished(
        changes | {"axes": {"lr": [1e-3], "batch": [2], "alpha": [0], "labels": ["both"], "teacher": ["other"]}}
    )
    frame = kdray.results(both.store.root).frame()
    assert set(frame.dropna(subset="alpha").arm) == {"SFT + SeqKD (other)"}
    mixed = finished(changes | {"axes": {"lr": [1e-3], "batch": [2], "alpha": [1], "teacher": ["mix"]}})
    frame = kdray.results(mixed.store.root).frame()
    assert "KD 1 (big+other)" in set(frame.dropna(subset="alpha").arm)
    assert set(kdray.results(mixed.path).frame().dropna(subset="alpha").arm) == {"KD 1 (mix)"}


def test_what_is_not_measured_yet_has_no_row(finished: Callable[..., Finished]) -> None:
    nothing = finished(only=lambda _: False)
    scores = kdray.results(nothing.path)
    assert (len(scores.frame()), len(scores.items())) == (0, 0)
    assert list(scores.frame().columns) == list(FRAME)
    half = finished(only=lambda step: step.kind != "measure" or "-s4" not in step.slug)
    frame = kdray.results(half.path).frame()
    assert set(frame.checkpoint.dropna()) == {2.0}
    assert not frame.final[frame.checkpoint.notna()].any()  # no table shows a point that is half-way


@pytest.mark.slow
def test_wrong_input_is_one_line(finished: Callable[..., Finished], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no scores in .*/empty; give a grid file, or the folder of a store"):
        kdray.results(tmp_path / "empty")
    with pytest.raises(InputError, match=r"no file .*nowhere\.yaml"):
        kdray.results(tmp_path / "nowhere.yaml")
    made = finished()
    answered = next(score for score in made.plan.scores if score.generate)
    sealed = made.store.get(answered.measure.key)
    assert sealed
    (sealed.path / ROWS).write_bytes(b"no parquet")
    with pytest.raises(
        InputError, match=rf"{ROWS}: damaged .*; remove the folder .*{answered.measure.id} and run again"
    ):
        kdray.results(made.path).items()
    assert len(kdray.results(made.path).frame())  # the scores themselves are whole
    assert answered.generate
    io.delete(made.store.folder(answered.generate.key))
    with pytest.raises(InputError, match=rf"was made from {answered.generate.id}, which the store no longer has"):
        kdray.results(made.store.root).frame()


@pytest.mark.slow
def test_importing_kdray_loads_nothing_and_reading_scores_no_torch(finished: Callable[..., Finished]) -> None:
    made = finished()
    code = (
        "import sys, kdray\n"
        "assert not [name for name in sys.modules if name.startswith('kdray.')]\n"
        f"scores = kdray.results({str(made.path)!r})\n"
        "assert len(scores.frame()) and len(scores.items())\n"
        "heavy = {'torch', 'transformers', 'ray', 'mlflow', 'datasets'}\n"
        "assert not heavy.intersection(sys.modules), heavy.intersection(sys.modules)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
