"""Every comparison of the report as rows: each arm against SFT on each headline metric."""

from __future__ import annotations

from kdray.report.faithful import at_equal_manner, rewards_copying
from kdray.report.results import Results
from kdray.report.statistics import comparisons, paired, signed
from kdray.report.verdict import shown_p

COMPARED = ("metric", "row", "difference from SFT [95%]", "p", "at equal length and copying [95%]", "items x runs")

COMPARED_NOTE = (
    "Items and runs are both samples; each interval is for itself, p is corrected for all comparisons (Holm)."
)


def compared_rows(results: Results) -> list[tuple[str, ...]]:
    """One a comparison, under `COMPARED`: intervals for each by itself, p after Holm's correction for all of them."""
    rows = []
    for found in comparisons(results):
        change, left = found.difference, None
        if rewards_copying(found.metric, results.plan):
            left = at_equal_manner(paired(results, found.metric, found.arm), found.metric)
        ends = [signed(end, 2) for end in left.interval()] if left else []
        equal = f"{signed(left.mean, 2)} [{', '.join(ends)}]" if left else ""
        size = f"{change.items} x {change.pairs}" if change.items else f"means of {change.pairs}"
        p = "" if found.p is None else shown_p(found.p).removeprefix("= ")
        rows.append((found.metric, found.arm.name, str(change), p, equal, size))
    return rows
