"""The metric `selfcite` of kept answers: what an actor measures, what is left out and counted, and what is cited."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdray.artifacts.answers import write_answers
from kdray.artifacts.scores import read_details, read_rows, read_scores
from kdray.cite.format import parse
from kdray.models.load import load_tokenizer
from kdray.models.loaded import load_as
from kdray.orchestration.measurer import AnswerMetrics, Measurer, MetricUse
from tests.tiny import write_model

PLACES = ["Paris", "Rome", "Oslo", "Lima", "Cairo"]
SOURCE = " ".join(f"Ada is in {place} now." for place in PLACES)
COUNTS = ("sequences", "documents_cut", "sentences_cut", "without_answer", "without_document", "without_room")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and its answers: two that can be measured, an empty one, one without its document in the prompt, one that
    failed.
    """
    here = tmp_path_factory.mktemp("selfcite")
    tokenizer = load_tokenizer(write_model(here / "model", layers=2))

    def row(example: int, answer: str, source: str = SOURCE, **more: Any) -> dict[str, Any]:
        ids = {"input_ids": f"Read : {SOURCE}\nWhere ?\n", "output_ids": answer}
        tokens = {name: tokenizer(text, add_special_tokens=False)["input_ids"] for name, text in ids.items()}
        asked = {"example": example, "question": "Where ?", "source": source, "references": [], "wrong": []}
        return {**asked, **tokens, "answer": answer, "error": None, "thought_ids": [], **more}

    rows = [row(0, "Ada lives in Rome. Oslo is in Lima."), row(1, "Ada."), row(2, ""), row(3, "Ada.", "Ben is away.")]
    (here / "outputs").mkdir()
    write_answers(here / "outputs", 0, [*rows, row(4, "", error="it failed")], 1.0)
    return here


def measured(folder: Path, target: Path, **params: Any) -> Path:
    target.mkdir()
    given = {"considered": 16, "cited": 3, "window": None, **params}
    item = AnswerMetrics(
        key="selfcite",
        target=target,
        outputs=folder / "outputs",
        answerer=folder / "model",
        dtype="float32",
        metrics=(MetricUse("selfcite", given),),
        count_empty=False,
        cache=folder / "cache",
    )
    Measurer(load_as)(item)
    return target


@pytest.mark.slow
def test_what_is_measured_and_what_is_left_out(folder: Path, tmp_path: Path) -> None:
    target = measured(folder, tmp_path / "target")
    scores = read_scores(target)
    assert set(scores) == {"selfcite", "cite_drop", "cite_hold", "cite_all", "failed"}
    assert {scores[name].n for name in scores if name != "failed"} == {2}
    assert scores["selfcite"].value == pytest.approx(scores["cite_drop"].value + scores["cite_hold"].value)
    assert scores["failed"].value == 20
    rows = read_rows(target, ["selfcite", "cited", *COUNTS]).to_pylist()
    assert [row["selfcite"] is not None for row in rows] == [True, True, False, False, False]
    assert [row["without_answer"] for row in rows] == [0, 0, 1, 0, None]
    assert [row["without_document"] for row in rows] == [0, 0, 0, 1, None]
    # all, none, five left out, and for each statement its sentences with and without; equal ones once
    assert 9 <= rows[0]["sequences"] <= 13
    assert read_details(target)["counts"] == {name: sum(row[name] or 0 for row in rows) for name in COUNTS}
    cited = parse(rows[0]["cited"], len(PLACES))
    assert [statement.text for statement in cited.statements] == ["Ada lives in Rome.", "Oslo is in Lima."]
    assert not cited.findings
    assert all(1 <= len(statement.sentences) <= 3 for statement in cited.statements)


@pytest.mark.slow
def test_fewer_sentences_are_left_out_where_fewer_are_considered(folder: Path, tmp_path: Path) -> None:
    rows = read_rows(measured(folder, tmp_path / "target", considered=1, cited=1), ["cited", "sequences"]).to_pylist()
    assert rows[1]["sequences"] == 4  # all, none, and without and with the sentence that is cited
    assert len(parse(rows[1]["cited"], len(PLACES)).statements[0].sentences) == 1


@pytest.mark.slow
def test_a_document_beyond_the_window_loses_its_last_sentences(folder: Path, tmp_path: Path) -> None:
    whole = read_rows(measured(folder, tmp_path / "whole"), ["selfcite"]).to_pylist()
    window = len(load_tokenizer(folder / "model")(f"Read : {SOURCE}\nWhere ?\nAda.")["input_ids"]) - 4
    cut = measured(folder, tmp_path / "cut", window=window)
    rows = read_rows(cut, ["selfcite", "sentences_cut", "without_room"]).to_pylist()
    assert rows[1]["sentences_cut"] == 1
    assert rows[0]["sentences_cut"] >= 2
    assert rows[1]["selfcite"] != whole[1]["selfcite"]
    assert read_details(cut)["counts"]["documents_cut"] == 2
    none = measured(folder, tmp_path / "none", window=8)
    assert read_details(none)["counts"]["without_room"] == 2
    assert "selfcite" not in read_scores(none)
