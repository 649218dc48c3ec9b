"""Citation recall, precision and F1 by a judge whose conclusions are given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdray.score.answers import Answer, Given
from kdray.score.endpoint import Endpoint, Stopped
from kdray.score.metrics.cite_judge import CiteJudge, passages_of

SOURCE = "Ada is in Paris. Ben is in Rome. Cleo is in Oslo."
Ask = Callable[[str], str]


def answer(*cites: str) -> Answer:
    """Of a statement for each of `cites`."""
    statements = [{"text": f"Statement {i}.", "best": each} for i, each in enumerate(cites)]
    return Answer("Statements.", "Who?", SOURCE, cited={"cut": 0, "statements": statements})


def metric(folder: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> CiteJudge:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setattr(Endpoint, "ask", lambda _, prompt: ask(prompt))
    return CiteJudge(Given({}, cache=folder), model="m", concurrency=1)


def test_recall_is_over_statements_and_precision_over_passages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        if "cites no passage" in prompt:
            return "It only introduces. **Conclusion: unneeded**"
        if "A cited passage" in prompt:
            known = "Paris" in prompt.partition("#A cited passage")[2]
            return f"Conclusion: relevant? No: **Conclusion: {'relevant' if known else 'irrelevant'}**"
        return "**Conclusion:** Partially" if "Statement 1." in prompt else "**Conclusion: fully**"

    judge = metric(tmp_path, ask, monkeypatch)
    [row] = judge([answer("[1-1][3-3]", "[2-3]", "")])
    # 100, 50 and 100 of the statements; one of three passages
    assert row["cite_recall"] == pytest.approx(250 / 3)
    assert row["cite_prec"] == pytest.approx(100 / 3)
    assert row["cite_f1"] == pytest.approx(2 * 250 / 3 * 100 / 3 / (350 / 3))
    assert len(asked) == 6
    assert "#Cited passages of the document#: Ada is in Paris.\nCleo is in Oslo.\n\n" in asked[0]
    assert "#Question#: Who?\n\n#Answer#: Statements.\n\n#Statement#: Statement 0.\n\n" in asked[0]
    assert "#A cited passage of the document#: Ben is in Rome. Cleo is in Oslo.\n\n" in asked[4]


@pytest.mark.parametrize(
    ("cites", "said", "expected"),
    [
        (["", ""], "Conclusion: needed", (0, 0, 0)),
        (["", ""], "Conclusion: unneeded", (100, 0, 0)),
        (["[1]"], "Conclusion: not / Conclusion: irrelevant", (0, 0, 0)),
        (["[1]"], "Conclusion: fully, Conclusion: relevant", (100, 100, 100)),
    ],
)
def test_what_is_not_cited_or_not_supported(
    cites: list[str],
    said: str,
    expected: tuple[float, float, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [row] = metric(tmp_path, lambda _: said, monkeypatch)([answer(*cites)])
    assert (row["cite_recall"], row["cite_prec"], row["cite_f1"]) == expected


def test_answers_without_citations_are_not_judged_and_a_judge_without_conclusions_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def ask(prompt: str) -> str:
        said.append(prompt)
        return "I cannot say."

    judge = metric(tmp_path, ask, monkeypatch)
    plain: list[Answer] = [Answer("Ada.", source=SOURCE), Answer("", source=SOURCE, cited={"cut": 0, "statements": []})]
    assert judge(plain) == [{}, {}]
    assert not said
    [row] = judge([answer("[1]")])
    assert "cite_judge: no conclusion in 'I cannot say.'" in row["error"]
    with pytest.raises(Stopped, match="none of the first 5"):
        judge([answer("[1]")] * 9)


def test_passages_are_sentences_of_the_document() -> None:
    statement: dict[str, Any] = {"best": "[1-2][1-2][3-3]"}
    assert passages_of(SOURCE, statement) == ["Ada is in Paris. Ben is in Rome.", "Cleo is in Oslo."]
    assert passages_of(SOURCE, {"best": ""}) == []
