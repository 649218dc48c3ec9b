"""A grid's tables for other programs: `tables.csv`, `tables.tex` (booktabs), and every score as `results.parquet`."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from kdray.report.frames import Scores
from kdray.report.page.tables import Cell, Sheet

CSV, LATEX, PARQUET = "tables.csv", "tables.tex", "results.parquet"
SPECIAL = {
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
}
SPECIAL |= {
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
}
PATTERN = re.compile("|".join(map(re.escape, SPECIAL)))


def write_exports(sheets: list[Sheet], grid: Path | None, folder: Path) -> None:
    """Write all of them; `results.parquet` where the grid's file is known."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(sheets, folder / CSV)
    (folder / LATEX).write_text("\n".join(latex(sheet) for sheet in sheets), encoding="utf-8")
    if grid:
        Scores(grid).frame().to_parquet(folder / PARQUET)


def latex(sheet: Sheet) -> str:
    """A table for `\\usepackage{booktabs}`; the best means in bold, a published figure below its cell's."""
    groups = [rf"\multicolumn{{{len(columns)}}}{{c}}{{{escaped(task)}}}" for task, columns in sheet.groups]
    rules, place = [], 3
    for _, columns in sheet.groups:
        rules.append(rf"\cmidrule(lr){{{place}-{place + len(columns) - 1}}}")
        place += len(columns)
    arrows = {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}
    names = [f"{escaped(column.label)} {arrows[column.arrow]}" for column in sheet.columns]
    lines = [
        f"% {sheet.title}: {sheet.note}".replace("±", "+-"),
        rf"\begin{{tabular}}{{ll{'r' * len(sheet.columns)}}}",
        r"\toprule",
        " & ".join(["", "", *groups]) + r" \\",
        "".join(rules),
        " & ".join(["Method", "runs", *names]) + r" \\",
        r"\midrule",
        *_body(sheet),
        r"\bottomrule",
        r"\end{tabular}",
        "",
    ]
    return "\n".join(lines)


def _body(sheet: Sheet) -> Iterator[str]:
    references = False
    for line in sheet.lines:
        if line.reference and not references:
            references = True
            yield r"\midrule"
        yield " & ".join([escaped(line.label), line.runs, *map(_latex_cell, line.cells)]) + r" \\"
        if any(cell.paper for cell in line.cells):
            yield " & ".join([r"\quad published", "", *(escaped(cell.paper) for cell in line.cells)]) + r" \\"


def _latex_cell(cell: Cell) -> str:
    mean = rf"\textbf{{{cell.mean}}}" if cell.best else cell.mean
    return (rf"{mean} $\pm$ {cell.sd}" if cell.sd else mean) or "--"


def escaped(text: str) -> str:
    """A text as LaTeX shows it, whatever is in it."""
    return PATTERN.sub(lambda match: SPECIAL[match[0]], " ".join(text.split()))


def _write_csv(sheets: list[Sheet], path: Path) -> None:
    """A line a cell: table, method, task, metric, mean, sd, n, whether it is the best, and the published figure."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["table", "method", "runs", "task", "metric", "column", "mean", "sd", "n", "best", "published"])
        for sheet in sheets:
            for line in sheet.lines:
                for column, cell in zip(sheet.columns, line.cells, strict=True):
                    name = column.metric
                    row = [
                        sheet.title,
                        line.label,
                        line.runs,
                        name.task,
                        column.label,
                        name,
                        cell.mean,
                        cell.sd,
                        cell.n or "",
                        int(cell.best),
                    ]
                    writer.writerow([*row, cell.paper])
