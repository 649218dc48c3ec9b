"""A test set of one's own: named columns, an instruction, ids, and two such sets in one grid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdray.artifacts.answers import read_answers
from kdray.check.checks import check_grid
from kdray.cost.amounts import Amounts, asked_by
from kdray.plan import make_plan
from kdray.score.answers import score_answers
from kdray.score.metrics.rouge import rouge
from kdray.spec import InputError, load_grid
from kdray.spec.load import parse_scoring
from kdray.spec.metric_names import MetricName
from kdray.stages.generate import keep
from kdray.store import Outer, Store
from tests.answers import prompt_batch
from tests.conftest import TinyGrid
from tests.score.test_prompts import prompts_of
from tests.tiny import write_tokenizer

COLUMNS = {"article": "body", "reference": "gold", "id": "key"}
PASSAGES = [{"title": "Ada", "text": " Ada is in Paris . "}, {"title": None, "text": "Ben is in Rome ."}]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    return write_tokenizer(tmp_path / "model")


def row(key: Any = "a", **changes: Any) -> dict[str, Any]:
    return {"key": key, "body": "Ada is in Paris .", "gold": "Ada"} | changes


def test_columns_and_instruction_are_the_users(tmp_path: Path, tokenizer: Any) -> None:
    (made,) = prompts_of(
        tmp_path, tokenizer, "summaries:mine", [row(7)], instruction="Say it shorter.", prompt="chat", **COLUMNS
    )
    assert tokenizer.decode(made.input_ids) == (
        "<|im_start|>user\nSay it shorter.\n\nAda is in Paris .<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (made.source, made.references, made.id) == ("Ada is in Paris .", ["Ada"], "7")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (["Ada is in Paris .", "", "Ben is in Rome ."], "Ada is in Paris .\nBen is in Rome ."),
        (PASSAGES, "Ada: Ada is in Paris .\nBen is in Rome ."),
        (
            {"title": ["Ada", ""], "text": ["Ada is in Paris .", "Ben is in Rome ."]},
            "Ada: Ada is in Paris .\nBen is in Rome .",
        ),
    ],
    ids=["texts", "titles", "lists-of-both"],
)
def test_passages_are_one_text_a_line_each(body: Any, text: str, tmp_path: Path, tokenizer: Any) -> None:
    (made,) = prompts_of(tmp_path, tokenizer, "summaries", [row(body=body)], **COLUMNS)
    assert made.source == text


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"body": [{"title": "Ada"}]}, "column 'body' holds a list that is none of passages with a text"),
        ({"body": {"text": "Ada"}}, "column 'body' holds a mapping that is none of passages with a text"),
        ({"body": []}, "nothing in column 'body'"),
        ({"body": 1.5}, "column 'body' holds the float 1.5, not a text"),
        ({"key": None}, "nothing in column 'key'"),
    ],
)
def test_a_row_that_cannot_be_asked_is_refused_alone(
    broken: dict[str, Any], reason: str, tmp_path: Path, tokenizer: Any
) -> None:
    refused, asked = prompts_of(tmp_path, tokenizer, "summaries", [row() | broken, row("b")], **COLUMNS)
    assert (refused.refused, asked.refused, asked.id) == (reason, None, "b")


def test_an_id_twice_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"score.tasks.summaries.id: the id 'a' twice in .*, in rows 1 and 3; give"):
        prompts_of(tmp_path, tokenizer, "summaries", [row("a"), row("b"), row("a")], **COLUMNS)


def test_ids_stand_beside_answers_and_scores(tmp_path: Path, tokenizer: Any) -> None:
    prompts = prompts_of(tmp_path, tokenizer, "summaries", [row("x"), row("y")], **COLUMNS)
    answers = [tokenizer(text)["input_ids"] for text in ("Ada", "Ben")]
    target = tmp_path / "kept"
    target.mkdir()
    keep(prompt_batch(target, prompts), answers, 1.0, tokenizer)
    kept = read_answers(target)
    assert [(one["example"], one["id"], one["answer"]) for one in kept] == [(0, "x", "Ada"), (1, "y", "Ben")]
    scores, rows = score_answers(kept, [rouge], count_empty=True)
    assert scores["rougeL"]["value"] == 50
    assert [one["id"] for one in rows] == ["x", "y"]
    assert "id" not in scores


def test_two_sets_in_one_grid_have_scores_of_their_own(tiny_grid: TinyGrid) -> None:
    tiny_grid.rows("mine.jsonl", [{"body": "It rained.", "gold": "Rain."}])
    mine = {"name": "summaries:mine", "source": "file:HERE/mine.jsonl", "article": "body", "reference": "gold"}
    other = {"name": "summaries", "source": "file:HERE/xsum.jsonl", "article": "document", "instruction": "Shorter."}
    changes = {"score.tasks": [mine, other], "score.metrics": ["hhem"], "report.primary": "summaries:mine/fc"}
    grid = load_grid(tiny_grid(changes))
    outer = Outer(Store(grid.runtime.store).root)
    check_grid(grid, outer, offline=True)
    scores = make_plan(grid, outer).scores
    assert {score.task.name for score in scores} == {"summaries:mine", "summaries"}
    made = {score.generate.key.id for score in scores if score.generate}
    assert len(made) == len({(score.subject, score.position, score.task.name) for score in scores})
    names = [MetricName(task.name, metric) for task in grid.score.tasks for metric in ("rougeL", "fc", "fr")]
    assert names == ["mine_rougeL", "mine_fc", "mine_fr", "sum_rougeL", "sum_fc", "sum_fr"]
    assert MetricName.parse(names[1].written) == names[1]


@pytest.mark.parametrize("column", ["article", "reference", "id"])
def test_a_column_that_is_not_there_is_found_before_any_work(column: str, tiny_grid: TinyGrid) -> None:
    mine = {"name": "summaries:mine", "source": "file:HERE/xsum.jsonl", "article": "document", column: "bdoy"}
    grid = load_grid(tiny_grid({"score.tasks": [mine]}))
    with pytest.raises(InputError, match=r"score.tasks.0.source: no column 'bdoy' in .*it has document, summary"):
        check_grid(grid, Outer(Store(grid.runtime.store).root), offline=True)


def test_its_price_is_by_the_files_rows_and_never_made_up(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row(i)) + "\n" for i in range(3)))
    known, unknown = (
        parse_scoring(f"{{name: summaries, source: '{source}'}}", "", "greedy", None, None, "chat")[0].tasks[0]
        for source in (f"file:{path}", "hf:org/mine")
    )
    amounts: Any = Amounts(train=1, heldout=1, prompt=1, response=1, known=True)
    found = asked_by(known, None, amounts)  # type: ignore[arg-type]
    assert found
    assert (found.rows, found.answer) == (3, 256)
    assert asked_by(unknown, None, amounts) is None  # type: ignore[arg-type]
