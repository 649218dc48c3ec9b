"""`kdray align` on a tiny model's own answers, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdray.artifacts.answers import write_answers
from kdray.cli.shared import WRONG_INPUT
from tests.answers import cited_row
from tests.conftest import Run
from tests.tiny import write_model


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    from kdray.models.load import load_tokenizer

    return load_tokenizer(write_model(tmp_path / "model", layers=2))


def keep(folder: Path, rows: list[dict[str, Any]]) -> None:
    folder.mkdir()
    write_answers(folder, 0, rows, 1.0)


@pytest.mark.slow
def test_a_model_is_trained_on_its_own_citations_and_can_be_loaded(run: Run, tmp_path: Path, tokenizer: Any) -> None:
    from kdray.models.load import load_folder

    failed = {"cited": None, "error": "it failed", "output_ids": [], "answer": ""}
    keep(
        tmp_path / "answers",
        [
            *(cited_row(tokenizer, i) for i in range(10)),
            cited_row(tokenizer, 10, best=-1.0),
            cited_row(tokenizer, 11) | failed,
        ],
    )
    options = ["--model", f"file:{tmp_path}/model", "--lr", "3e-3", "--batch", "3", "--epochs", "4"]
    code, stdout, stderr = run("align", "answers", *options, "--to", "aligned")
    assert code == 0, stderr
    assert "trained on 9 pairs of 11 answers, 12 steps" in stdout
    record = json.loads((tmp_path / "aligned" / "align.json").read_text())
    assert (record["answers"], record["pairs"], record["heldout"], len(record["steps"])) == (11, 10, 1, 12)
    assert record["after"]["heldout_margin"] > record["before"]["heldout_margin"]
    before, after = (load_folder(tmp_path / name)[0].state_dict() for name in ("model", "aligned"))
    assert any((before[name] != value).any() for name, value in after.items())
    again = run("align", "answers", *options, "--to", "again")
    assert again[0] == 0
    assert json.loads((tmp_path / "again" / "align.json").read_text()) == record


@pytest.mark.slow
def test_what_cannot_be_learned_from_is_one_line(run: Run, tmp_path: Path, tokenizer: Any) -> None:
    model = ["--model", f"file:{tmp_path}/model", "--to", "aligned"]

    def said(*words: str) -> str:
        code, _, stderr = run("align", *words, *model)
        assert code == WRONG_INPUT
        assert not (tmp_path / "aligned").exists()
        return stderr.splitlines()[-1]

    keep(tmp_path / "plain", [cited_row(tokenizer, 0) | {"cited": None}])
    keep(tmp_path / "alike", [cited_row(tokenizer, 0, best=-1.0)])
    (tmp_path / "none").mkdir()
    assert said("plain") == "error ANSWERS: no citations in plain; give answers by the decoding selfcite"
    assert "of 1 answers none has a citation that is better than its plain one" in said("alike")
    assert said("none").startswith("error ANSWERS: no answers in none")
    assert said("alike", "--lr", "0") == "error --lr: 0; must be above 0"
