"""Scores of answers that somebody else's models gave: a row a model, on the terminal and in files.

In the folder are `report.md`, `scores.csv` and, a folder a model, `scores.json` and `examples.parquet` as `measure`
leaves them. Beside the metrics stand words and the percentage of them that is copied from the source: detectors of
hallucinations reward both.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kdray.artifacts.scores import write_scores
from kdray.data.estimates import mean
from kdray.report.manner import manner_of
from kdray.score.answers import Metric, Scores, score_answers
from kdray.score.given import FIELD, GivenAnswers
from kdray.spec import declare
from kdray.spec.components import declared
from kdray.spec.errors import InputError

NO_LENS = (
    "Not measured: factual rates by a lens, which reads the attention of the model that answered; they need its weights"
    " (kdray score --model REF --lens LENS)."
)
ALWAYS = ("words", "copied", "empty")


def measured(given: GivenAnswers, metrics: Mapping[str, Metric]) -> dict[str, tuple[Scores, list[dict[str, object]]]]:
    """By model its scores, {metric: {value, stderr, n}}, and a row an answer.

    Raises:
        InputError: not one answer of a model could be scored.
    """
    found = {}
    for model, kept in given.rows.items():
        try:
            scores, rows = score_answers(kept, list(metrics.values()), count_empty=True)
        except ValueError as error:
            raise InputError(FIELD, f"{model}: {error}", "give answers that these metrics can be taken of") from None
        del scores["unfinished"]  # of thoughts, which answers in a file do not have
        for row, answer in zip(rows, kept, strict=True):
            manner = manner_of(answer["answer"], answer["source"])
            row |= {"words": manner.words, "copied": None if manner.coverage is None else 100 * manner.coverage}
        for name in ("words", "copied"):
            values = [float(value) for row in rows if (value := row[name]) is not None and not row["error"]]
            scores |= {name: mean(values)} if values else {}
        found[model] = scores, rows
    return found


def print_given(
    found: Mapping[str, tuple[Scores, list[dict[str, object]]]], metrics: Sequence[str], console: Console, title: str
) -> None:
    """The table: value ± standard error over the answers."""
    shown = _shown(found, metrics)
    console.print(f"\n[bold]{title}[/]: value ± standard error over the answers", highlight=False)
    table = Table(box=None)
    for number, heading in enumerate(["", "answers", *shown]):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for model, (scores, rows) in found.items():
        table.add_row(model, str(len(rows)), *(_cell(scores, name) for name in shown))
    console.print(table)


def write_given(
    found: Mapping[str, tuple[Scores, list[dict[str, object]]]],
    metrics: Sequence[str],
    notes: Sequence[str],
    folder: Path,
    title: str,
) -> None:
    """Write what is measured into `folder`, in the place of what is there."""
    shown = _shown(found, metrics)
    header = ["", "answers", *shown]
    body = [
        [model, str(len(rows)), *(_cell(scores, name) for name in shown)] for model, (scores, rows) in found.items()
    ]
    lines = [f"# {title}", "", *(f"- {note}" for note in notes), "", "Value ± standard error over the answers.", ""]
    lines += [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *body)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (folder / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "metric", "value", "stderr", "n"])
        for model, (scores, _) in found.items():
            writer.writerows(
                [model, name, score["value"], score["stderr"], score["n"]] for name, score in scores.items()
            )
    for number, (model, (scores, rows)) in enumerate(found.items()):
        of_model = folder / f"{number}-{re.sub(r'[^A-Za-z0-9._-]+', '-', model)}"
        of_model.mkdir(exist_ok=True)
        write_scores(of_model, scores, rows)


def _shown(found: Mapping[str, tuple[Scores, list[dict[str, object]]]], metrics: Sequence[str]) -> list[str]:
    """The first number of every metric, and what is told of all answers; `failed` where there are some."""
    names = [*(declared(declare.Metric, metric).scores[0] for metric in metrics), *ALWAYS, "failed"]
    return [name for name in names if any(name in scores for scores, _ in found.values())]


def _cell(scores: Scores, name: str) -> str:
    return f"{scores[name]['value']:z.2f} ± {scores[name]['stderr']:.2f}" if name in scores else "-"
