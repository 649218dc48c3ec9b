"""Rows that nobody can be asked about are kept with the reason and counted; everything else goes on."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kdray.artifacts.answers import read_answers
from kdray.cli.progress import Terminal
from kdray.orchestration.resources import Node, Resources
from kdray.orchestration.work import Work
from kdray.plan import make_plan
from kdray.report.results import collect
from kdray.score.prompt_file import read_prompts
from kdray.scorer import score as score_all
from kdray.spec import load_grid
from kdray.spec.errors import InputError
from kdray.stages.generate import Asked, generate
from kdray.stages.measure import measure
from kdray.store import Locks, Outer, Store
from tests.orchestration.inline import start_inline
from tests.tiny import write_grid

ROWS: list[dict[str, Any]] = [
    {"document": "Ada is in Rome .", "summary": "Ada lives in Rome"},
    {"document": None, "summary": "Ben lives in Oslo"},
    {"document": ["Cleo is in Lima .", "Dan is in Cairo ."], "summary": "Cleo lives in Lima"},
    {"document": "Eve is in Delhi .", "summary": None},
    {"document": " ", "summary": "Finn"},
    {"document": {"text": "[/Gus]"}, "summary": "Gus"},  # no markup of a terminal either
]


@contextmanager
def without_ray() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdray.orchestration.crew.Crew.start", start_inline)
        yield


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Work, str]]:
    """The untrained student's answers to two tasks, of which one has no row that can be used, measured; and what was
    said.
    """
    with without_ray():
        yield answered_in(tmp_path_factory.mktemp("refused"), ROWS)


def answered_in(tmp_path: Path, rows: list[dict[str, Any]], more: str = "") -> tuple[Work, str]:
    """`rows` are those of XSUM, `more` further parameters of both tasks."""
    unusable = [{"article": {"a": "[/a]"}, "highlights": "h"}, {"article": {"a": ""}, "highlights": "h"}]
    for name, written in (("xsum", rows), ("cnn", unusable)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    files = {"cnn_dailymail": "cnn", "xsum": "xsum"}
    tasks = [
        f"{{name: {task}, source: 'file:{tmp_path}/{file}.jsonl', max_new_tokens: 4{more}}}"
        for task, file in files.items()
    ]
    path = write_grid(
        tmp_path,
        teacher=f"{{model: 'file:{tmp_path}/teacher'}}",
        score=f"{{tasks: [{', '.join(tasks)}], batch: 2, references: [student]}}",
    )
    grid = load_grid(path)
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
        asked, measured = [score.generate for score in scores if score.generate], [score.measure for score in scores]
        score_all([generate(asked, work), measure(measured, work)], work)
    return work, output.getvalue()


@contextmanager
def before_training(tmp_path: Path, rows: list[dict[str, Any]]) -> Iterator[Work]:
    """Two points of which nothing is there but the untrained student, asked XSUM's `rows`."""
    (tmp_path / "xsum.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "cnn.jsonl").write_text('{"article": "Ben is in Oslo .", "highlights": "Oslo"}\n' * 3)
    task = f"{{name: xsum, source: 'file:{tmp_path}/xsum.jsonl', max_new_tokens: 4}}"
    task += f", {{name: cnn_dailymail, source: 'file:{tmp_path}/cnn.jsonl', max_new_tokens: 4}}"
    path = write_grid(
        tmp_path,
        teacher="null",
        axes="{lr: [3.0e-3, 1.0e-3], batch: [4], alpha: [0]}",
        score=f"{{tasks: [{task}], batch: 2, references: []}}",
    )
    grid = load_grid(path)
    store = Store(grid.runtime.store)
    plan = make_plan(grid, Outer(store.root))
    attempt = store.begin(plan.models["student"].key, plan.models["student"].payload or {})
    shutil.copytree(tmp_path / "student", attempt.path, dirs_exist_ok=True)
    attempt.seal()
    with Locks() as locks, Terminal(Console(file=io.StringIO())) as progress:
        yield Work(plan, store, Outer(store.root), locks, progress, Resources((Node(1, 0),), workers=1))


@pytest.mark.slow
def test_all_points_prompts_are_written_once_before_any_is_trained(tmp_path: Path) -> None:
    with before_training(tmp_path, ROWS) as work:
        stages = [
            generate([score.generate for score in work.plan.scores if score.generate and score.task.name == task], work)
            for task in ("xsum", "cnn_dailymail")
        ]
        for stage in stages:
            assert len(stage.steps) > 1
            stage.look()
        for stage, rows in zip(stages, (len(ROWS), 3), strict=True):  # neither has written over the other's
            [asked] = stage.asked.values()
            assert isinstance(asked, Asked)
            assert {prompt.example for prompt in read_prompts(asked.path, range(rows))} == set(range(rows))
            assert not any(work.store.folder(step.key).exists() for step in stage.steps)


@pytest.mark.slow
def test_data_that_cannot_be_used_are_told_before_any_point_is_trained(tmp_path: Path) -> None:
    with before_training(tmp_path, [{"text": "A", "summary": "B"}]) as work:
        stage = generate([score.generate for score in work.plan.scores if score.generate], work)
        with pytest.raises(InputError, match="document"):
            stage.look()
        assert not work.failed


@pytest.mark.slow
def test_a_row_without_a_document_is_kept_with_the_reason_and_its_neighbours_are_answered(
    answered: tuple[Work, str],
) -> None:
    work, said = answered
    (step,) = (score.generate for score in work.plan.scores if score.subject == "student" and score.task.name == "xsum")
    rows = read_answers(work.folder(step))
    assert [row["example"] for row in rows] == list(range(len(ROWS)))
    assert [row["error"] for row in rows] == [
        None,
        "nothing in column 'document'",
        None,
        None,
        "nothing in column 'document'",
        "column 'document' holds the dict {'text': '[/Gus]'}, not a text",
    ]
    assert [bool(row["input_ids"]) for row in rows] == [row["error"] is None for row in rows]
    assert rows[2]["source"] == "Cleo is in Lima .\nDan is in Cairo ."
    assert rows[3]["references"] == []
    assert "xsum: 3 of 6 rows cannot be asked and count as failed; row 1: nothing in column 'document'" in said


def test_rows_that_could_not_be_asked_or_compared_are_no_zeros_but_failed(answered: tuple[Work, str]) -> None:
    work, _ = answered
    (checkpoint,) = (found for found in collect(work.plan, work.store).checkpoints if found.subject == "student")
    assert checkpoint.scores["xsum_rougeL"].n == 2
    assert checkpoint.scores["xsum_failed"].value == pytest.approx(100 * 4 / 6)
    assert checkpoint.scores["xsum_empty"].n == 3


def test_a_task_without_a_usable_row_fails_alone(answered: tuple[Work, str]) -> None:
    work, said = answered
    failed = [reason for reason in work.failed.values() if "needs" not in reason.split(" ")[0]]
    assert failed == [
        f"score.tasks.cnn_dailymail: no model can be asked about any row of file:{work.store.root.parent}/cnn.jsonl: "
        "column 'article' holds the dict {'a': '[/a]'}, not a text; give rows that have what the task needs"
    ]
    assert said.count("failed generate") == 1
    assert len(work.failed) == 2  # the answers and their scores


@pytest.mark.slow
def test_texts_that_are_cut_to_the_window_are_told_of_and_counted(tmp_path: Path) -> None:
    """Of 512 tokens; nobody knew how many summaries were of half an article."""
    texts = ["Ada is in Rome .", "Ben is in Oslo . " * 300, "Cleo is in Lima ."]
    with without_ray():
        work, said = answered_in(tmp_path, [{"document": text, "summary": "s"} for text in texts], ", max_words: null")
    assert "xsum: 1 of 3 texts are too long for the model's window and lose their end" in said
    (made,) = [score.generate for score in work.plan.scores if score.subject == "student" and score.task.name == "xsum"]
    assert made is not None
    artifact = work.store.get(made.key)
    assert artifact is not None
    assert artifact.facts["cut"] == 1
    rows = read_answers(artifact.path)
    assert [row["source"] == text.strip() for row, text in zip(rows, texts, strict=True)] == [True, False, True]
    assert texts[1].startswith(rows[1]["source"])
    assert 480 < len(rows[1]["input_ids"]) <= 512 - 4
    assert all(row["error"] is None for row in rows)
