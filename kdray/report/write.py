"""Put a grid's results on the terminal and into a folder: report.md, scores.csv and plots."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kdray.report.compared import COMPARED, COMPARED_NOTE, compared_rows
from kdray.report.confidence import plot_confidence
from kdray.report.plots import plot_curves, plot_scores
from kdray.report.results import Results
from kdray.report.table import Row, calibration_of, headings, metrics_of, reference_name, rows_of
from kdray.report.verdict import verdict
from kdray.spec.decodings import decoding_label, guided_by_grids_lens
from kdray.spec.installed import Distribution
from kdray.spec.metric_names import MetricName
from kdray.spec.points import Point
from kdray.spec.sections.scoring import LensSection
from kdray.spec.uses import uses

AXES = (  # columns of scores.csv
    "labels",
    "teacher",
    "alpha",
    "smoothing",
    "temperature",
    "on_policy",
    "rows",
    "aligned",
    "lr",
    "batch",
    "seed",
)


def print_table(results: Results, console: Console) -> None:
    """The table, in several below each other where it is wider than the console, and the verdict."""
    rows = rows_of(results)
    spread = "mean ± sd over lr x batch x seed" if results.plan.points else "value ± standard error over the examples"
    console.print(f"\n[bold]{results.plan.grid.name}[/]: {spread}", highlight=False)
    for i, metrics in enumerate(_that_fit(metrics_of(results), rows, console.width)):
        table = Table(box=None)
        for number, heading in enumerate(headings(metrics)):
            table.add_column(heading, justify="right" if number else "left", no_wrap=True)
        for row in rows:
            part = replace(row, cells={metric: row.cells[metric] for metric in metrics})
            table.add_row(*part.texts, style="dim" if row.reference else None)
        console.print(*[""] * (i > 0), table)
    for sentence in [*verdict(results), *notes_of(results)]:
        console.print(sentence, highlight=False, soft_wrap=True)


def _that_fit(metrics: list[MetricName], rows: list[Row], width: int) -> list[list[MetricName]]:
    """The metrics in runs of as many as fit beside the rows' labels, one at least."""
    gap = 2  # characters between columns
    columns = [["", *(row.label for row in rows)], ["runs", *(row.runs for row in rows)]]
    labels = sum(gap + max(map(len, column)) for column in columns)
    tables: list[list[MetricName]] = [[]]
    room = width - labels
    for metric in metrics:
        needed = gap + max(map(len, [metric, *(row.cells[metric] for row in rows)]))
        if needed > room and tables[-1]:
            tables.append([])
            room = width - labels
        tables[-1].append(metric)
        room -= needed
    return tables


def write_report(results: Results, folder: Path) -> Path:
    """Write the report into `folder` (made if need be) and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    grid, metrics = results.plan.grid, metrics_of(results)
    notes = [*verdict(results), *notes_of(results)]
    lines = [f"# {grid.name}", "", grid.question, "", *(f"- {note}" for note in notes), ""]
    if results.plan.points:
        lines += [
            f"Mean ± standard deviation over lr x batch x seed; final checkpoints (`{grid.report.checkpoint}`).",
            "",
        ]
    else:
        lines += ["Value ± standard error over the examples.", ""]
    lines += _table(results, metrics)
    if compared := compared_rows(results):
        lines += [
            "",
            "## Comparisons",
            "",
            COMPARED_NOTE,
            "",
            *_markdown(list(COMPARED), [list(row) for row in compared]),
        ]
    if plot_scores(results, folder / "scores.png"):
        lines += ["", "![scores against alpha](scores.png)"]
    if plot_curves(results, folder / "curves.png"):
        lines += ["", "![losses over examples seen](curves.png)"]
    if calibration := calibration_of(results):
        lines += [
            "",
            "## Calibration",
            "",
            "Expected calibration error (percent) and Brier score (0 to 2); lower is better.",
            "",
        ]
        lines += _table(results, calibration)
    if plot_confidence(results, folder / "confidence.png"):
        lines += [
            "",
            (
                "How sure models are of wrong answers: density of the negative log-likelihood of the answer that was"
                " taken."
            ),
            "",
        ]
        lines += ["![confidence in wrong answers](confidence.png)"]
    lines += ["", "## Every checkpoint", "", "Value ± standard error over the examples of the task.", ""]
    header = ["model", "examples seen", *metrics]
    body = []
    for checkpoint in results.checkpoints:
        cells = [f"{s.value:z.2f} ± {s.stderr:.2f}" if (s := checkpoint.scores.get(m)) else "-" for m in metrics]
        body.append([_name(checkpoint.subject, results), str(checkpoint.examples or ""), *cells])
    lines += _markdown(header, body)
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_csv(results, folder / "scores.csv")
    return folder


def notes_of(results: Results) -> list[str]:
    """What a reader must know of all numbers, beside the verdict."""
    return [*shots_notes(results), *lens_notes(results), *installed_notes(results), *results.limits]


def shots_notes(results: Results) -> Iterator[str]:
    """Where models that were not trained here are asked in another way than those that were."""
    for use in results.plan.grid.score.tasks:
        if (untrained := use.params.get("untrained_shots")) is not None and untrained != use.params["shots"]:
            own = "the task's own number of" if use.params["shots"] is None else use.params["shots"]
            yield f"{use.name}: models that were not trained here see {untrained} solved examples, the others {own}."


def lens_notes(results: Results) -> Iterator[str]:
    """How far factual rates can be trusted: what trained the lens, and those that are not to be read as rates of
    facts.
    """
    section, facts = results.plan.grid.lens, results.lens
    if section and facts:
        yield f"Factual rates are by {_lens(section, facts)}."
        for use in filter(guided_by_grids_lens, results.plan.grid.score.decoding):
            yield (
                f"The same lens chose the answers of {decoding_label(use)}: its rate of them is no evidence that they"
                " are factual."
            )
    for checkpoint in results.checkpoints:
        for rate in checkpoint.drifted:
            auroc = checkpoint.scores[MetricName(rate.task, "fr_auroc", rate.decoding)].value
            who = _name(checkpoint.subject, results)
            yield f"{rate} of {who}: the lens has drifted (AUROC {auroc:.1f}, more than 5 below its own model's)."


def installed_notes(results: Results) -> Iterator[str]:
    """What of the grid's components is not kdray's own, and whose it is."""
    given: dict[Distribution, list[str]] = {}
    for _, found in uses(results.plan.grid):
        if found.entry:
            given.setdefault(found.entry.distribution, []).append(f"the {found.kind.word} {found.name}")
    for distribution, names in given.items():
        yield f"Not kdray's own but {distribution}'s: {', '.join(dict.fromkeys(names))}."


def _lens(section: LensSection, facts: dict[str, Any]) -> str:
    """Where a lens is from, and how good it is."""
    tested = None if facts["auroc_test"] is None else f"AUROC {facts['auroc_test']:.1f}"
    whose = (
        f"of the untrained student's own answers, annotated by {section.own.metric.name}"
        if section.own
        else "annotated responses"
    )
    if section.trained:
        before = f" (AUROC {facts['auroc_before']:.1f} then)" if facts.get("auroc_before") else ""
        here = f"{tested} on {facts['examples']} {whose}" if tested else "not tested here"
        unknown = (
            ""
            if facts.get("documents_known", True)
            else "; what it learned from is not known and not left out of its rates"
        )
        return f"a lens that was trained before{before}: {here}{unknown}"
    return f"a lens of {facts['examples']} {whose}: {tested or 'AUROC unknown'} on documents kept out of its training"


def _write_csv(results: Results, path: Path) -> None:
    """One line a score: everything that the tables are made of."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["model", *AXES, "examples", "metric", "value", "stderr", "n"])
        for checkpoint in results.checkpoints:
            subject = checkpoint.subject
            point = subject if isinstance(subject, Point) else None
            axes = [getattr(point, name) for name in AXES] if point else [""] * len(AXES)
            for metric, score in checkpoint.scores.items():
                writer.writerow(
                    [
                        _name(subject, results),
                        *axes,
                        checkpoint.examples or "",
                        metric,
                        score.value,
                        score.stderr,
                        score.n,
                    ]
                )


def _table(results: Results, metrics: list[MetricName]) -> list[str]:
    return _markdown(headings(metrics), [row.texts for row in rows_of(results, metrics)])


def _markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def _name(subject: Point | str, results: Results) -> str:
    return subject.slug if isinstance(subject, Point) else reference_name(subject, results.plan)
