"""XSUM hallucination annotations (Maynez et al., ACL 2020): spans by three people in summaries of four systems.

`path` is `hallucination_annotations_xsum_summaries.csv`; the articles, which it names by BBC id, are read from the XSUM
rows (document, id) in `xsum.jsonl` beside it. A character is hallucinated where most of a summary's annotators marked
it. Offsets are believed only where they give the quoted text; else the quotation is looked for.
"""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kdray.lens.annotations import Annotated
from kdray.lens.read import at_line, read_lines, require_file, text
from kdray.spec import declare
from kdray.spec.errors import InputError

DECLARED = declare.Annotations(version=1, beside="xsum.jsonl")
NOTHING = ("", "NULL")  # the type of a row that marks nothing
COLUMNS = (
    "bbcid",
    "system",
    "summary",
    "hallucination_type",
    "hallucinated_span",
    "hallucinated_span_start",
    "worker_id",
)


def xsum_hallucination(path: Path) -> Iterator[Annotated]:
    require_file(path, "give the CSV of annotated summaries")
    beside = path.with_name(str(DECLARED.beside))
    articles = dict(read_lines(beside, ("id", "document"), lambda row: (str(row["id"]), text(row, "document"))))
    rows = sorted(_rows(path), key=lambda row: (row["bbcid"], row["system"]))
    for (bbcid, system), group in itertools.groupby(rows, key=lambda row: (row["bbcid"], row["system"])):
        if bbcid in articles:
            yield _one(f"{bbcid}-{system}", articles[bbcid], system, list(group))


def _rows(path: Path) -> list[dict[str, str]]:
    allowed = f"it needs {', '.join(COLUMNS)}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError("annotations", f"{path.name} is no CSV ({error})", allowed) from None
    for number, row in rows:
        if missing := [column for column in COLUMNS if column not in row]:
            raise InputError("annotations", f"{path.name} has no column '{missing[0]}'", allowed)
        with at_line(path, number):
            for column in COLUMNS:
                text(row, column)
            if row["hallucination_type"] not in NOTHING:
                int(row["hallucinated_span_start"])
    return [row for _, row in rows]


def _one(id: str, article: str, system: str, rows: list[dict[str, str]]) -> Annotated:
    summary, workers = rows[0]["summary"], {row["worker_id"] for row in rows}
    marks: Counter[int] = Counter()
    unfound = []
    for worker in workers:
        marked: set[int] = set()
        for row in rows:
            if row["worker_id"] != worker or row["hallucination_type"] in NOTHING:
                continue
            quote = row["hallucinated_span"]
            begin = int(row["hallucinated_span_start"])
            if summary[begin : begin + len(quote)] != quote:
                begin = summary.find(quote)
            if begin < 0:
                unfound.append(quote)
            else:
                marked |= set(range(begin, begin + len(quote)))
        marks.update(marked)
    majority = sorted(place for place, count in marks.items() if 2 * count > len(workers))
    return Annotated(id, article, summary, tuple(_runs(majority)), tuple(unfound), writer=system)


def _runs(places: list[int]) -> Iterator[tuple[int, int]]:
    """Sorted places as [begin, end) runs."""
    for _, run in itertools.groupby(enumerate(places), key=lambda pair: pair[1] - pair[0]):
        members = [place for _, place in run]
        yield members[0], members[-1] + 1
