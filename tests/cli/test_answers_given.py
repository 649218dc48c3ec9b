"""`kdray score --answers`: answers of any model, measured without one of ours."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kdray.report.given import NO_LENS
from tests.conftest import Run
from tests.tiny import write_model

SOURCE = "Ada is in Paris . Ben is in Rome ."


def row(key: Any, answer: Any = "Ada is in Paris", model: str | None = None, **changes: Any) -> dict[str, Any]:
    named = {} if model is None else {"model": model}
    return {"id": key, "source": SOURCE, "reference": "Ada is in Paris", "answer": answer} | named | changes


def write(folder: Path, rows: list[dict[str, Any]], name: str = "theirs.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def scores_in(folder: Path) -> dict[tuple[str, str], float]:
    with (folder / "scores.csv").open() as file:
        return {(line["model"], line["metric"]): float(line["value"]) for line in csv.DictReader(file)}


def test_every_model_is_a_row_by_rouge_and_copying(run: Run, tmp_path: Path) -> None:
    rows = [row(i, model="copies") for i in range(4)] + [row(i, "Eve lives", model="invents") for i in range(4)]
    code, stdout, stderr = run("score", "--answers", write(tmp_path, rows), "--store", "st")
    assert (code, stderr) == (0, "")
    found = scores_in(tmp_path / "st" / "answers" / "theirs")
    assert (found["copies", "rougeL"], found["copies", "copied"], found["copies", "words"]) == (100, 100, 4)
    assert (found["invents", "rougeL"], found["invents", "copied"], found["invents", "words"]) == (0, 0, 2)
    (line,) = [line for line in stdout.splitlines() if line.lstrip().startswith("copies")]
    assert line.split()[1:5] == ["4", "100.00", "±", "0.00"]
    assert NO_LENS in stdout
    assert stdout.count("Whether answers are true to their sources: add --metrics") == 1
    kept = pq.read_table(tmp_path / "st" / "answers" / "theirs" / "1-invents" / "examples.parquet").to_pylist()
    assert [(one["id"], one["rougeL"], one["copied"]) for one in kept] == [(str(i), 0, 0) for i in range(4)]


def test_empty_answers_are_counted_and_copy_nothing(run: Run, tmp_path: Path) -> None:
    rows = [row("a"), row("b", ""), row("c", None), {"id": "d", "source": SOURCE, "reference": "Ada is in Paris"}]
    code, stdout, _ = run("score", "--answers", write(tmp_path, rows), "--store", "st")
    found = scores_in(tmp_path / "st" / "answers" / "theirs")
    assert code == 0
    assert "75.00 ± 25.00" in stdout
    assert (found["answers", "empty"], found["answers", "rougeL"], found["answers", "copied"]) == (75, 25, 100)


def test_models_are_compared_on_the_ids_that_all_of_them_answered(run: Run, tmp_path: Path) -> None:
    rows = [row(i, "Ada is in Paris" if i < 2 else "Eve", "one") for i in range(7)]
    rows += [row(i, model="two") for i in (1, 0)]
    code, stdout, _ = run("score", "--answers", write(tmp_path, rows), "--store", "st")
    found = scores_in(tmp_path / "st" / "answers" / "theirs")
    assert code == 0
    assert (found["one", "rougeL"], found["two", "rougeL"]) == (100, 100)
    assert "two has no answer to 5 of 7 ids: 2, 3, 4 and 2 more" in stdout
    assert "all numbers are over the 2 ids that every model answered" in stdout


def test_without_references_there_is_no_rouge(run: Run, tmp_path: Path) -> None:
    rows = [{"id": 1, "source": [{"title": "Ada", "text": "Ada is in Paris ."}], "answer": "Ada: Ada is"}]
    code, stdout, _ = run("score", "--answers", write(tmp_path, rows), "--store", "st")
    assert code == 0
    assert "No references, so no rouge." in stdout
    assert scores_in(tmp_path / "st" / "answers" / "theirs") == {
        ("answers", "empty"): 0, ("answers", "words"): 3, ("answers", "copied"): 100,
    }  # fmt: skip


def test_a_metric_of_consistency_is_taken_and_a_stand_in_is_called_one(run: Run, tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", layers=1)
    path = write(tmp_path, [row("a"), row("b", "Ben is in Rome"), row("c", "")])
    code, stdout, stderr = run(
        "score", "--answers", path, "--store", "st", "--metrics", f"{{name: support_standin, model: 'file:{model}'}}"
    )
    assert code == 0, stderr
    kept = pq.read_table(tmp_path / "st" / "answers" / "theirs" / "0-answers" / "examples.parquet").to_pylist()
    assert [one["support"] is None for one in kept] == [False, False, True]
    assert "support_standin stands in for a metric" in stdout


def test_a_name_is_shown_whole_whatever_is_in_it(run: Run, tmp_path: Path) -> None:
    rows = [row("a", model=f"m|{heat}] [temp={heat}] [/]") for heat in (0, 1)]
    code, stdout, stderr = run("score", "--answers", write(tmp_path, rows, "[x].jsonl"), "--store", "st")
    assert code == 0, stderr
    for name in ("[x].jsonl", "m|0] [temp=0] [/]", "m|1] [temp=1] [/]"):
        assert name in stdout
    [line] = [line for line in (tmp_path / "st/answers/[x]/report.md").read_text().splitlines() if "temp=0" in line]
    assert line.startswith(r"| m\|0] [temp=0] [/] | 1 | 100.00 ± 0.00 |")


def test_words_are_counted_in_every_answer_and_no_folder_of_an_earlier_file_is_left(run: Run, tmp_path: Path) -> None:
    """Also where a metric fails, as rouge does without a reference."""
    run("score", "--answers", write(tmp_path, [row("a", model="one"), row("a", model="two")]), "--store", "st")
    path = write(tmp_path, [row("a", model="two"), row("b", "Ben", "two", reference=None)])
    code, _, stderr = run("score", "--answers", path, "--store", "st")
    assert code == 0, stderr
    folder = tmp_path / "st" / "answers" / "theirs"
    found = scores_in(folder)
    assert (found["two", "failed"], found["two", "words"], found["two", "copied"]) == (50, 2.5, 100)
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["0-two"]


def test_a_row_without_a_source_fails_alone(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path, [row("a"), row("b", source=None)])
    code, stdout, _ = run("score", "--answers", path, "--store", "st")
    found = scores_in(tmp_path / "st" / "answers" / "theirs")
    assert code == 0
    assert (found["answers", "failed"], found["answers", "rougeL"]) == (50, 100)
    assert "failed" in stdout


WRONG: dict[str, tuple[list[dict[str, Any]], list[str], str]] = {
    "no id": ([row("a"), row(None)], [], "--answers: row 2 has no id; give every row an id"),
    "an id twice": ([row("a"), row("a")], [], "--answers: the id 'a' twice, in rows 1 and 2; give every row"),
    "an id twice of one model": (
        [row("a", model="m"), row("a", model="n"), row("a", model="m")],
        [],
        "the id 'a' twice of the model 'm', in rows 1 and 3",
    ),
    "no column": ([{"id": 1, "source": SOURCE}], [], "no column 'answer' in"),
    "no ids at all": ([{"answer": "x", "source": SOURCE}], [], "no column 'id' in"),
    "two sources": (
        [row("a", model="m"), row("a", model="n", source="Another")],
        [],
        "the id 'a' with two sources, in rows 1 and 2",
    ),
    "nothing in common": ([row("a", model="m"), row("b", model="n")], [], "no id that all of m, n answered"),
    "an answer that is none": ([row("a", {"text": "x"})], [], "column 'answer' holds the dict"),
    "a metric twice": ([row("a")], ["--metrics", "chrf, chrf"], "--metrics: 'chrf' a second time"),
    "no such metric": ([row("a")], ["--metrics", "chrff"], "--metrics: no metric 'chrff'"),
    "a metric of samples": ([row("a")], ["--metrics", "selfcheck"], "'selfcheck' needs more answers of the model"),
    "a metric that asks the model": ([row("a")], ["--metrics", "selfcite"], "'selfcite' asks the model that answered"),
    "a metric of citations": ([row("a")], ["--metrics", "citations"], "'citations' needs citations; leave it out"),
    "a metric of wrong answers": ([row("a")], ["--metrics", "truthful"], "'truthful' needs a wrong, which"),
    "a metric of references": (
        [row("a", reference=None)],
        ["--metrics", "chrf"],
        "'chrf' needs a reference, which theirs.jsonl has not",
    ),
    "a lens": ([row("a")], ["--lens", "published"], "--lens: beside --answers, where a lens reads the attention"),
    "a task": ([row("a")], ["--tasks", "xsum"], "--tasks: beside --answers, where no model is asked"),
    "a model": ([row("a")], ["--model", "file:x"], "--model: beside --answers"),
}


@pytest.mark.parametrize(("rows", "more", "said"), WRONG.values(), ids=[name.replace(" ", "-") for name in WRONG])
def test_wrong_answers_are_one_line(
    rows: list[dict[str, Any]], more: list[str], said: str, run: Run, tmp_path: Path
) -> None:
    code, stdout, stderr = run("score", "--answers", write(tmp_path, rows), "--store", "st", *more)
    assert (code, stdout) == (2, "")
    assert said in stderr
    assert len(stderr.splitlines()) == 1
    assert not (tmp_path / "st").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--model: missing; name models and tasks, or give --answers FILE"),
        (["--model", "file:x"], "--tasks: missing"),
        (["--answers", "none.jsonl"], "--answers: no file none.jsonl"),
        (["--answers", "rows.txt"], "--answers: 'rows.txt' has no known format"),
    ],
)
def test_what_to_score_must_be_said(arguments: list[str], said: str, run: Run) -> None:
    code, _, stderr = run("score", *arguments)
    assert code == 2
    assert said in stderr
