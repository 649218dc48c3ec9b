"""Answers under the decoding `selfcite`, as an actor keeps them, and the metric `citations` of what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdray.artifacts.answers import read_answers
from kdray.artifacts.scores import read_details, read_rows, read_scores
from kdray.cite import best as module
from kdray.cite.best import Candidates, Manner
from kdray.cite.format import parse
from kdray.models.load import load_tokenizer
from kdray.models.loaded import Loaded, load_as
from kdray.orchestration.measurer import AnswerMetrics, Measurer, MetricUse
from kdray.score.decodings import open_citations
from kdray.score.prompts import Prompt
from kdray.spec.errors import InputError
from kdray.stages.generate import Generator
from tests.answers import prompt_batch
from tests.tiny import write_model

SOURCE = "Ada is in Paris now. Ben is in Rome now. Cleo is in Oslo now."
PARAMS: dict[str, Any] = {
    "candidates": 3,
    "limit": 384,
    "temperature": 0.95,
    "top_p": 0.7,
    "cite_temperature": 1.2,
    "cite_top_p": 0.9,
    "cite_tokens": 8,
    "window": None,
    "seed": 0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("citations")
    write_model(here / "model", layers=2)
    return here


def answered(folder: Path, name: str, decoding: str, **params: Any) -> list[dict[str, Any]]:
    """Three prompts, of which the second lacks its document, and the third has no token."""
    tokenizer = load_tokenizer(folder / "model")
    ids = [tokenizer(f"Read : {text} Where ?")["input_ids"] for text in (SOURCE, "nothing")]
    prompts = [Prompt(i, each, "Where ?", SOURCE, [], []) for i, each in enumerate([*ids, []])]
    (folder / name).mkdir()
    item = prompt_batch(folder / name, prompts, decoding={"name": decoding, "params": params}, max_new_tokens=24)
    Generator(load_as)(item)
    return read_answers(folder / name)


def measured(folder: Path, outputs: str) -> Path:
    target = folder / f"scores-{outputs}"
    target.mkdir()
    Measurer(load_as)(
        AnswerMetrics(
            key="citations",
            target=target,
            outputs=folder / outputs,
            answerer=folder / "model",
            metrics=(MetricUse("citations", {}),),
            cache=folder / "cache",
        )
    )
    return target


@pytest.mark.slow
def test_answers_are_the_sampled_ones_and_citations_are_kept_beside_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(*_: object) -> list[str]:
        return ["[2-2]</cite>", "[1-1][3-3]</cite>", "[1-2]</cite>", "Ada"]

    monkeypatch.setattr(module, "drawn", written)
    rows = answered(folder, "cited", "selfcite", **PARAMS)
    sampled = answered(folder, "sampled", "sampled", temperature=0.95, top_p=0.7, seed=0)
    assert [row["output_ids"] for row in rows] == [row["output_ids"] for row in sampled]
    assert rows[0]["answer"] == sampled[0]["answer"]
    assert "<cite>" not in rows[0]["answer"]
    assert "cited" not in sampled[0]
    assert rows[1]["cited"] == {"cut": 0, "statements": []}
    assert (rows[2]["cited"], rows[2]["error"]) == (None, "a prompt without a token")
    statements = rows[0]["cited"]["statements"]
    assert " ".join(" ".join(each["text"] for each in statements).split()) == " ".join(rows[0]["answer"].split())
    assert 0 < sum(each["tokens"] for each in statements) <= len(rows[0]["output_ids"])
    for each in statements:
        assert each["plain"] == "[2-2]"
        assert each["best"] in ("[1-1][3-3]", "[1-2]", "")
        assert each["sound"] == pytest.approx(2 / 3)

    target = measured(folder, "cited")
    scores = read_scores(target)
    tokens = sum(each["tokens"] for each in statements)
    for name in ("best", "plain"):
        expected = sum(each[f"{name}_reward"] for each in statements) / tokens
        assert scores[f"cite_{name}"].value == pytest.approx(expected)
        assert scores[f"cite_{name}"].n == 1
    assert scores["cite_sound"].value == pytest.approx(200 / 3)
    [row, none, failed] = read_rows(target, ["cited", "cite_some", "cite_length", "without_citations"]).to_pylist()
    read = parse(row["cited"], 3)
    assert not read.findings
    assert row["cite_length"] == pytest.approx(sum(len(one.sentences) for one in read.statements) / len(statements))
    assert row["cite_some"] == 100 * sum(bool(one.cites) for one in read.statements) / len(statements)
    assert [each["without_citations"] for each in (row, none, failed)] == [0, 1, None]
    assert read_details(target)["counts"] == {"documents_cut": 0, "sentences_cut": 0, "without_citations": 1}
    assert not [name for name in read_scores(measured(folder, "sampled")) if name.startswith("cite")]


@pytest.mark.slow
def test_what_cannot_be_cited_is_counted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load_as(folder / "model", "float32")
    tokenizer = loaded.tokenizer

    def row(answer: str) -> dict[str, Any]:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (f"Read : {SOURCE} Where ?", answer)]
        return {"input_ids": ids[0], "source": SOURCE, "answer": answer, "output_ids": ids[1], "thought_ids": []}

    def cite(answer: str, **changes: Any) -> dict[str, Any]:
        how = open_citations("selfcite", PARAMS | changes)
        assert how
        return how(loaded, row(answer))

    whole = cite("Ada is in Rome. Ben .")
    assert whole["cut"] == 0
    assert [each["text"] for each in whole["statements"]] == ["Ada is in Rome.", "Ben ."]
    assert cite("Ada is in Rome. Ben .") == whole
    assert cite("") == {"cut": 0, "statements": []}
    assert cite("Ada .", window=20) == {"cut": 3, "statements": []}
    size = len(module.Writer(tokenizer).ids(module.INSTRUCTION)) + len(row("")["input_ids"])
    assert cite("Ada .", window=size + 40)["cut"] in (1, 2)
    assert open_citations("sampled", {}) is None

    seen: list[Candidates] = []

    def drawn(model: object, context: object, how: Candidates, *_: object) -> list[str]:
        seen.append(how)
        return ["[1-1]</cite>"] * 4

    monkeypatch.setattr(module, "drawn", drawn)
    assert cite("Ada .", seed=1)["statements"][0]["best"] == "[1-1]"
    assert seen == [Candidates(3, Manner(0.95, 0.7), Manner(1.2, 0.9), 8, 384, 1)]

    def refuse(self: Loaded) -> None:
        raise InputError("score.likelihood", "a model that mixes sequences of one row", "use hflm")

    monkeypatch.setattr(Loaded, "shared", property(refuse))
    with pytest.raises(InputError, match=r"score\.decoding\.selfcite: a model that mixes"):
        cite("Ada .")
