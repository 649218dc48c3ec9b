"""`report.html`: one grid's report, or several beside each other, in one file that needs no network."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from kdray.report.page import PAGE
from kdray.report.page.cases import Cases, cases_of
from kdray.report.page.evidence import Evidence
from kdray.report.page.exports import write_exports
from kdray.report.page.gallery import Gallery, gallery_of
from kdray.report.page.origin import Origin, origin_of
from kdray.report.page.states import Progress, bytes_of, duration, progress_of
from kdray.report.page.tables import Sheet, calibration_sheet, compared_on, sheets_of
from kdray.report.results import Results
from kdray.report.statistics import Spread
from kdray.report.write import notes_of
from kdray.spec.points import Point
from kdray.store import Store, io

PLURALS = {"lr": ("learning rate", "learning rates"), "batch": ("batch size", "batch sizes"), "seed": ("seed", "seeds")}


@dataclass(frozen=True)
class Part:
    """One grid's part of a page. `prefix` stands before its anchors; it is empty where there is no other grid."""

    evidence: Evidence
    prefix: str
    label: str
    command: str
    sheets: list[Sheet]
    calibration: Sheet | None
    gallery: Gallery
    cases: Cases | None
    progress: Progress
    origin: Origin
    notes: list[str]
    items: list[str]
    runs: list[tuple[str, str, list[str]]]

    @property
    def axes(self) -> str:
        """How many of each axis there are beside the methods."""
        points = self.evidence.points
        counts = {name: len({getattr(point, name) for point in points}) for name in ("lr", "batch", "seed")}
        return ", ".join(f"{count} {PLURALS[name][count > 1]}" for name, count in counts.items())

    @property
    def has_paper(self) -> bool:
        return any(cell.paper for sheet in self.sheets for line in sheet.lines for cell in line.cells)

    @property
    def scored(self) -> int:
        return sum(isinstance(subject, Point) for subject in self.evidence.finals)


def write_page(given: Sequence[tuple[Results, Store, Path | None]], folder: Path) -> Path:
    """Write `report.html` into `folder`, with its figures and tables as files; each grid with its store, and the file
    that it is from.

    Of several grids each has a folder of its own for its files. Returns the page's path.
    """
    labels = _labels([results for results, _, _ in given])
    several, parts = len(given) > 1, []
    for i, ((results, store, file), label) in enumerate(zip(given, labels, strict=True), start=1):
        home = folder / f"{i}-{results.plan.grid.name}" if several else folder
        part = part_of(results, store, file, home / "figures", f"g{i}-" if several else "", label)
        write_exports(part.sheets, file, home)
        parts.append(part)
    text = render("page.html", parts=parts, several=several, side_by_side=_side_by_side(parts))
    io.put(folder / PAGE, text.encode(), durable=False)
    return folder / PAGE


def part_of(results: Results, store: Store, file: Path | None, figures: Path, prefix: str, label: str) -> Part:
    """Everything that a page says of one grid. Its figures are drawn into a folder."""
    evidence = Evidence(results)
    return Part(
        evidence=evidence,
        prefix=prefix,
        label=label,
        command=f"kdray run {os.path.relpath(file) if file else 'GRID'}",
        sheets=sheets_of(evidence),
        calibration=calibration_sheet(evidence),
        gallery=gallery_of(evidence, figures, prefix),
        cases=cases_of(evidence, store),
        progress=progress_of(evidence, store),
        origin=origin_of(evidence, store),
        notes=notes_of(results),
        items=compared_on(evidence),
        runs=list(_runs(evidence)),
    )


def render(template: str, **values: Any) -> str:
    """A template of this folder with its values, each escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kdray.report.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "bytes": bytes_of}
    return environment.get_template(template).render(**values)


def source(name: str) -> str:
    """The text of a file among the templates, as it is."""
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _labels(all_results: Sequence[Results]) -> list[str]:
    """What the grids are called: by name, and by number too where two have one name."""
    names = [results.plan.grid.name for results in all_results]
    return [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names, start=1)]


def _side_by_side(parts: Sequence[Part]) -> list[tuple[str, list[Spread | None]]]:
    """Of every arm of any grid its means of the grids' primary metrics."""
    arms = dict.fromkeys(arm for part in parts for arm in part.evidence.arms)
    spreads = {arm: [part.evidence.spread(arm, part.evidence.primary) for part in parts] for arm in arms}
    return [(arm.name, found) for arm, found in spreads.items()]


def _runs(evidence: Evidence) -> Iterator[tuple[str, str, list[str]]]:
    """Every checkpoint with its scores: the model, the examples that it has seen, and its values ± standard errors."""
    for checkpoint in evidence.results.checkpoints:
        subject = checkpoint.subject
        name = subject.slug if isinstance(subject, Point) else evidence.references.get(subject, subject)
        scores = [checkpoint.scores.get(metric) for metric in evidence.metrics]
        if any(scores):
            yield (
                name,
                f"{checkpoint.examples or ''}",
                [f"{s.value:z.2f} ± {s.stderr:.2f}" if s else "" for s in scores],
            )
